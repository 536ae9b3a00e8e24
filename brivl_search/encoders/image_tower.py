"""BriVL's image tower: timm CNN → feature map → region tokens → self-attention → masked mean → MLP → unit vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.config import ImageTowerConfig
from brivl_search.encoders.heads import TowerHead
from brivl_search.encoders.regions import pooling_matrix
from brivl_search.errors import EncoderError


class ImageTower(nn.Module):
    """Pixels to unit vectors.

    For training with the first blocks of the CNN frozen and their output cached, the CNN splits in two,
    `early(images, blocks)` and `late(cached, blocks)` (timm's EfficientNet family only).
    """

    def __init__(self, config: ImageTowerConfig, dim: int) -> None:
        """Builds the tower with random weights.

        Raises:
            EncoderError: timm does not know the backbone.
        """
        super().__init__()
        import timm

        try:
            # num_classes=0 drops the classifier, which the tower never uses; weights come from the checkpoint.
            self.backbone = timm.create_model(
                config.backbone, pretrained=False, num_classes=0, **{"global_pool": "", **config.backbone_args}
            )
        except (RuntimeError, TypeError) as error:
            raise EncoderError(f"timm cannot build the image backbone {config.backbone!r}: {error}") from None
        for path in config.identity:
            self.backbone.set_submodule(path, nn.Identity())
        self.config = config
        channels = int(self.backbone.num_features)
        width = config.width or channels
        self.project = nn.Linear(channels, width)  # BriVL's 1 × 1 convolution after the region sampling
        self.head = TowerHead(width, dim, config.head)
        self._pooling: dict[tuple[int, int, str], Tensor] = {}
        self.register_buffer("mean", torch.tensor(config.mean) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(config.std) * 255, persistent=False)

    def train(self, mode: bool = True) -> ImageTower:
        super().train(mode)
        if self.config.freeze_bn:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (B, S, S, 3) to normalised float32 (B, 3, S, S) in channels-last memory."""
        count, size = pixels.shape[:2]
        # By whole rows of S · 3 values: faster on CPUs than broadcasting along a last dimension of 3.
        rows = pixels.reshape(count, size, -1).float()
        rows.sub_(self.get_buffer("mean").repeat(size)).div_(self.get_buffer("std").repeat(size))
        return rows.view(pixels.shape).permute(0, 3, 1, 2)

    def _blocks(self) -> list[nn.Module]:
        return [block for stage in self.backbone.blocks for block in stage]

    def early_modules(self, blocks: int) -> list[nn.Module]:
        """What `early(…, blocks)` runs."""
        return [self.backbone.conv_stem, self.backbone.bn1, *self._blocks()[:blocks]]

    def early(self, images: Tensor, blocks: int) -> Tensor:
        """Stem and the first `blocks` residual blocks: normalised (B, 3, S, S) → (B, c, h, w)."""
        x = images
        for module in self.early_modules(blocks):
            x = module(x)
        return x

    def between(self, cached: Tensor, first: int, last: int) -> Tensor:
        """Blocks `first` to `last` (exclusive), on the output of `early(…, first)`."""
        x = cached
        for block in self._blocks()[first:last]:
            x = block(x)
        return x

    def late(self, cached: Tensor, blocks: int) -> Tensor:
        """The rest of the CNN after `early(…, blocks)` → feature map (B, C, H, W)."""
        x = self.between(cached, blocks, len(self._blocks()))
        return self.backbone.bn2(self.backbone.conv_head(x))  # type: ignore[no-any-return]

    def embed(self, feature_map: Tensor) -> Tensor:
        """Feature map (B, C, H, W) → unit vectors (B, dim), float32."""
        _, _, height, width = feature_map.shape
        key = (height, width, str(feature_map.device))
        if key not in self._pooling:
            # `inference_mode(False)`: a matrix first made while embedding must still serve in training.
            with torch.inference_mode(False), torch.no_grad():
                self._pooling[key] = pooling_matrix(self.config.grids, height, width).to(feature_map.device)
        pooling = self._pooling[key].to(feature_map.dtype)
        if self.training and self.config.region_dropout:
            kept = max(round(len(pooling) * (1 - self.config.region_dropout)), 1)
            order = torch.rand(len(feature_map), len(pooling), device=pooling.device).argsort(1)
            pooling = pooling[order[:, :kept]]  # (B, kept, H·W)
        regions = pooling @ feature_map.flatten(2).transpose(1, 2)
        regions = F.dropout(regions, self.config.feature_dropout, self.training)
        return self.head(self.project(regions))  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (B, S, S, 3) → unit vectors (B, dim), float32."""
        return self.embed(self.backbone.forward_features(self.normalize(pixels)))
