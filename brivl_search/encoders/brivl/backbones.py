"""A CNN of an image tower: a timm network with its own pixel normalisation. It can be split after any block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint

from brivl_search.encoders.brivl.config import BackboneConfig
from brivl_search.errors import EncoderError


class Backbone(nn.Module):
    """uint8 pixels → a feature map.

    Training with frozen blocks runs timm's EfficientNets in two parts: `early(images, n)` is the stem and the first n
    steps, `run(x, n)` is the rest. A step is a residual block; the last step is the head convolution.
    """

    def __init__(self, config: BackboneConfig) -> None:
        """Builds the network with random weights.

        Raises:
            EncoderError: timm does not know it.
        """
        super().__init__()
        import timm

        try:
            # num_classes=0 drops the classifier, which a tower never uses; weights come from the checkpoint.
            self.net = timm.create_model(
                config.name, pretrained=False, num_classes=0, **{"global_pool": "", **config.args}
            )
        except (RuntimeError, TypeError) as error:
            raise EncoderError(f"timm cannot build the image backbone {config.name!r}: {error}") from None
        for path in config.identity:
            self.net.set_submodule(path, nn.Identity())
        self.name = config.name
        self.channels = int(self.net.num_features)
        self.register_buffer("mean", torch.tensor(config.mean) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(config.std) * 255, persistent=False)

    def fuse(self) -> None:
        """Folds every BatchNorm into the convolution before it. Inference only: the same map, faster.

        It works on timm's EfficientNets, where a norm always follows its convolution. Other networks stay as they are.
        """
        if not hasattr(self.net, "conv_stem") or not hasattr(self.net, "blocks"):
            return
        for parent in list(self.net.modules()):
            convolution: nn.Conv2d | None = None
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.modules.batchnorm._BatchNorm) and convolution is not None:
                    fused = fuse_conv_bn_eval(convolution, child)
                    convolution.weight, convolution.bias = fused.weight, fused.bias
                    setattr(parent, name, getattr(child, "act", nn.Identity()))  # timm's norms carry the activation
                    convolution = None
                elif isinstance(child, nn.Conv2d):
                    convolution = child

    def normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (B, S, S, 3) → normalised float32 (B, 3, S, S) in channels-last memory."""
        count, size = pixels.shape[:2]
        # By whole rows of S · 3 values: faster on CPUs than broadcasting along a last dimension of 3.
        rows = pixels.reshape(count, size, -1).float()
        rows.sub_(self.get_buffer("mean").repeat(size)).div_(self.get_buffer("std").repeat(size))
        return rows.view(pixels.shape).permute(0, 3, 1, 2)

    def _head(self, x: Tensor) -> Tensor:
        return self.net.bn2(self.net.conv_head(x))  # type: ignore[no-any-return]

    def _steps(self) -> list[Callable[[Tensor], Tensor]]:
        if not hasattr(self.net, "conv_head"):
            raise EncoderError(
                f"{self.name} cannot be cut into frozen and trained blocks: only timm's EfficientNets can"
            )
        return [*(block for stage in self.net.blocks for block in stage), self._head]

    def frozen_modules(self, steps: int) -> list[nn.Module]:
        """The modules that `early(…, steps)` runs."""
        blocks = [step for step in self._steps()[:steps] if isinstance(step, nn.Module)]
        head = [self.net.conv_head, self.net.bn2] if steps >= len(self._steps()) else []
        return [self.net.conv_stem, self.net.bn1, *blocks, *head]

    def early(self, pixels: Tensor, steps: int) -> Tensor:
        """uint8 (B, S, S, 3) → (B, c, h, w) after the stem and the first `steps` steps."""
        return self.run(self.net.bn1(self.net.conv_stem(self.normalize(pixels))), 0, steps)

    def run(self, x: Tensor, first: int, last: int | None = None) -> Tensor:
        """Steps `first` to `last` (exclusive; None: to the end) on the output of `early(…, first)`."""
        recompute = bool(getattr(self.net, "grad_checkpointing", False)) and torch.is_grad_enabled()
        for step in self._steps()[first:last]:
            block = recompute and isinstance(step, nn.Module)  # not the head, as in timm's own forward pass
            x = checkpoint(step, x, use_reentrant=False) if block else step(x)
        return x

    def width(self, steps: int) -> int:
        """Channels of `early(…, steps)`."""
        device = next(self.net.parameters()).device
        with torch.no_grad():
            return int(self.early(torch.zeros(1, 64, 64, 3, dtype=torch.uint8, device=device), steps).shape[1])

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, S, S, 3) → feature map (B, channels, H, W)."""
        return self.net.forward_features(self.normalize(pixels))  # type: ignore[no-any-return]
