"""BriVL's image tower: CNN → feature map → region tokens → self-attention → masked mean → MLP → unit vector.

BriVL 1.0 (arXiv 2103.06561) takes its regions from a detector; 2.0 (arXiv 2110.14378) from fixed grids of several
sizes, which it calls multi-scale patch pooling. The CNN is one of timm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brivl_search.encoders.brivl.backbones import Backbone
from brivl_search.encoders.brivl.config import HeadConfig, ImageTowerConfig
from brivl_search.encoders.brivl.heads import TowerHead
from brivl_search.encoders.brivl.regions import box_weights, pooling_matrix
from brivl_search.encoders.brivl.seen import Seen
from brivl_search.errors import EncoderError


class Member(nn.Module):
    """One more head of an image tower, with its own projection of the regions (`ImageTowerConfig.members`)."""

    def __init__(self, channels: int, width: int, dim: int, head: HeadConfig) -> None:
        super().__init__()
        self.project = nn.Linear(channels, width)
        self.head = TowerHead(width, dim, head)


class ImageTower(nn.Module):
    """Pixels → unit vectors. With several backbones, a region's token joins the channels of all of them.

    In training, frozen blocks come first and their output is cached. So the tower can be split after any block of its
    backbones (`Backbone`): `early`, `between`, `maps` and `embed`, in this order, are the whole tower.
    """

    def __init__(self, config: ImageTowerConfig, dim: int) -> None:
        """Builds the tower with random weights.

        Raises:
            EncoderError: timm does not know a backbone.
        """
        super().__init__()
        self.backbones = nn.ModuleList(Backbone(backbone) for backbone in config.backbones)
        self.config = config
        channels = sum(backbone.channels for backbone in self.cnns())
        width = config.width or channels
        self.project = nn.Linear(channels, width)  # BriVL's 1 × 1 convolution after the region sampling
        self.head = TowerHead(width, dim, config.head)
        self.members = nn.ModuleList(Member(channels, width, dim, config.head) for _ in range(config.members - 1))
        self.seen: Seen | None = None
        if config.classes:
            read = sum(self.cnns()[at].channels for at in config.class_backbones)
            self.seen = Seen(read, config.classes, dim, config.class_backbones)
        self._pooling: dict[tuple[int, int, str], Tensor] = {}
        self._widths: dict[tuple[int, ...], list[int]] = {}

    def cnns(self) -> list[Backbone]:
        """The members of `backbones`, typed."""
        return [module for module in self.backbones if isinstance(module, Backbone)]

    def train(self, mode: bool = True) -> ImageTower:
        super().train(mode)
        if self.config.freeze_bn:
            for module in self.backbones.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def fuse(self) -> None:
        """Makes the loaded tower faster; for inference only (`Backbone.fuse`)."""
        for backbone in self.cnns():
            backbone.fuse()

    def frozen_modules(self, steps: Sequence[int]) -> list[nn.Module]:
        """What `early(…, steps)` runs."""
        return [m for backbone, n in zip(self.cnns(), steps, strict=True) for m in backbone.frozen_modules(n)]

    def early(self, pixels: Tensor, steps: Sequence[int]) -> Tensor:
        """uint8 (B, S, S, 3) → (B, Σc, h, w), the backbones' channels after `steps` of their steps.

        Raises:
            EncoderError: the maps differ in height or width there.
        """
        maps = [backbone.early(pixels, n) for backbone, n in zip(self.cnns(), steps, strict=True)]
        if len({m.shape[2:] for m in maps}) > 1:
            sizes = ", ".join(f"{m.shape[2]} × {m.shape[3]}" for m in maps)
            raise EncoderError(f"cached blocks must end at maps of one size, not {sizes}: change cached_blocks")
        return torch.cat(maps, 1)

    def _split(self, x: Tensor, steps: Sequence[int]) -> Sequence[Tensor]:
        key = tuple(steps)
        if key not in self._widths:
            self._widths[key] = [b.width(n) for b, n in zip(self.cnns(), steps, strict=True)]
        return torch.split(x, self._widths[key], 1)

    def between(self, x: Tensor, first: Sequence[int], last: Sequence[int]) -> Tensor:
        """From the output of `early(…, first)` to that of `early(…, last)`."""
        parts = zip(self.cnns(), self._split(x, first), first, last, strict=True)
        return torch.cat([backbone.run(part, a, b) for backbone, part, a, b in parts], 1)

    def maps(self, x: Tensor, steps: Sequence[int]) -> list[Tensor]:
        """The output of `early(…, steps)` → a feature map (B, C, H, W) per backbone."""
        parts = zip(self.cnns(), self._split(x, steps), steps, strict=True)
        return [backbone.run(part, n) for backbone, part, n in parts]

    def _pooling_matrix(self, feature_map: Tensor) -> Tensor:
        _, _, height, width = feature_map.shape
        key = (height, width, str(feature_map.device))
        if key not in self._pooling:
            # `inference_mode(False)`: a matrix first made while embedding must still serve in training.
            with torch.inference_mode(False), torch.no_grad():
                matrix = pooling_matrix(self.config.grids, height, width, self.config.roi)
                self._pooling[key] = matrix.to(feature_map.device)
        return self._pooling[key].to(feature_map.dtype)

    def _box_matrix(self, boxes: Tensor, feature_map: Tensor) -> Tensor:
        height, width = feature_map.shape[2:]
        in_cells = boxes.float() * boxes.new_tensor([width, height, width, height], dtype=torch.float32)
        return box_weights(in_cells, height, width, self.config.roi).to(feature_map.dtype)

    def embed(self, maps: Sequence[Tensor], boxes: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Feature maps (B, C, H, W), one per backbone → unit vectors (B, dim), float32.

        Args:
            maps: of the backbones.
            boxes: (B, R, 4) float32: x1, y1, x2, y2 as shares of the picture's width and height, the whole picture
                among them; None: the fixed grid.
            mask: (B, R) bool, false where a row of `boxes` is padding.
        """
        return mean_direction(self.embed_members(maps, boxes, mask))

    def embed_members(self, maps: Sequence[Tensor], boxes: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """As `embed`, what each member says: (members, B, dim). In training each drops other regions and features."""
        vectors: list[Tensor] = []
        regions = self._regions(maps, boxes)
        for member in (self, *self.members):
            if self.training and vectors:
                regions = self._regions(maps, boxes)
            vectors.append(member.head(member.project(regions), mask))
        stacked = torch.stack(vectors)
        return stacked if self.seen is None else F.normalize(stacked + self.seen(maps), dim=-1)

    def regions(self, pixels: Tensor, boxes: Tensor | None = None) -> Tensor:
        """uint8 pixels (B, S, S, 3) → the regions' features before any head, (B, R, Σ channels).

        What a one-tower matcher reads. Boxes are as `embed` takes them; a row of padding has features too.
        """
        return self._regions([backbone(pixels) for backbone in self.backbones], boxes)

    def both(self, pixels: Tensor, boxes: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """uint8 pixels (B, S, S, 3) → what `regions` gives, and what `forward` gives."""
        maps = [backbone(pixels) for backbone in self.backbones]
        return self._regions(maps, boxes), self.embed(maps, boxes, mask)

    def all_regions(self, maps: Sequence[Tensor]) -> Tensor:
        """Feature maps → the features of the fixed grid's regions (B, R, Σ channels), in training too all of them."""
        tokens = [self._pooling_matrix(one) @ one.flatten(2).transpose(1, 2) for one in maps]
        return torch.cat(tokens, 2)

    def _regions(self, maps: Sequence[Tensor], boxes: Tensor | None) -> Tensor:
        """The regions' features (B, R, Σ channels); in training without some of both."""
        kept: Tensor | None = None
        if boxes is None and self.training and self.config.region_dropout:
            count = sum(n * n for n in self.config.grids)
            order = torch.rand(len(maps[0]), count, device=maps[0].device).argsort(1)
            kept = order[:, : max(round(count * (1 - self.config.region_dropout)), 1)]
        tokens = []
        for feature_map in maps:
            # (R, H·W), or with dropped regions (B, kept, H·W), or with boxes (B, R, H·W)
            pooling = self._pooling_matrix(feature_map) if boxes is None else self._box_matrix(boxes, feature_map)
            tokens.append((pooling if kept is None else pooling[kept]) @ feature_map.flatten(2).transpose(1, 2))
        regions = torch.cat(tokens, 2)
        if self.training and (rate := self.config.feature_dropout):
            # Whole channels of a picture, the same in all its regions, which would otherwise tell what is missing.
            drop = torch.rand(len(regions), 1, regions.shape[2], device=regions.device) >= rate
            regions = regions * (drop / (1 - rate)).to(regions.dtype)
        return regions

    def forward(self, pixels: Tensor, boxes: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """uint8 pixels (B, S, S, 3), boxes and mask as `embed` takes them → unit vectors (B, dim), float32."""
        return self.embed([backbone(pixels) for backbone in self.backbones], boxes, mask)


def mean_direction(vectors: Tensor) -> Tensor:
    """Unit vectors (members, B, dim) → the direction of their mean, (B, dim)."""
    return vectors[0] if len(vectors) == 1 else F.normalize(vectors.mean(0), dim=-1)
