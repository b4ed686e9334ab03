"""One head from its configuration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heads.activations import dense_output
from heads.config import HeadConfig
from heads.dpt import DPTPointHead
from heads.linear import LinearPointHead
from heads.local_features import FusedHead, FusedPoints, MLPLocalFeatures
from heads.outputs import DenseOutput, RawMaps

__all__ = ["DenseHead", "build_head"]


class DenseHead(nn.Module):
    """The whole head of one view: points, confidence, descriptors and their confidence.

    Exactly one of ``fused`` (with ``fused_points`` where pointmaps have decoder blocks of their
    own) or ``points`` (with or without ``local_features``) is there.
    """

    def __init__(
        self,
        config: HeadConfig,
        *,
        encoder_dim: int,
        decoder_dim: int,
        decoder_depth: int,
        patch_size: int,
        pyramid_dims: Sequence[int] | None,
        own_points: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.fused: FusedHead | None = None
        self.fused_points: FusedPoints | None = None
        self.points: LinearPointHead | DPTPointHead | None = None
        self.local_features: MLPLocalFeatures | None = None
        if config.points == "fused":
            if pyramid_dims is None:
                raise ValueError("a fused head needs a convolutional stem")
            if patch_size != 16:
                raise ValueError(f"a fused head needs patches of 16 pixels, got {patch_size}")
            self.fused = FusedHead(
                encoder_dim, decoder_dim, pyramid_dims, config, with_points=not own_points
            )
            if own_points:
                self.fused_points = FusedPoints(encoder_dim, decoder_dim, pyramid_dims, config)
            return
        if own_points:
            raise ValueError(f"own points: expected a fused head, got {config.points}")
        if config.points == "dpt":
            self.points = DPTPointHead(encoder_dim, decoder_dim, decoder_depth, config)
        else:
            self.points = LinearPointHead(decoder_dim, patch_size)
        if config.local_features == "mlp":
            self.local_features = MLPLocalFeatures(encoder_dim, decoder_dim, patch_size, config)

    def raw(
        self,
        layers: list[Tensor],
        grid: tuple[int, int],
        pyramid: Sequence[Tensor] = (),
        pixels: Tensor | None = None,
        point_layers: list[Tensor] | None = None,
    ) -> RawMaps:
        """The maps before any activation, for losses that look at few pixels; see ``forward``."""
        if self.fused is not None:
            assert pixels is not None
            points, descriptors = self.fused(layers, grid, pyramid, pixels)
            if point_layers is not None:
                points = self.raw_points(point_layers, grid, pyramid)
            return RawMaps(points, descriptors)
        assert self.points is not None
        features = None if self.local_features is None else self.local_features(layers, grid)
        return RawMaps(self.points(layers, grid), features)

    def raw_points(
        self, layers: list[Tensor], grid: tuple[int, int], pyramid: Sequence[Tensor]
    ) -> Tensor:
        """(B, 4, H, W) of a pointmap with its own way up; ``layers``: encoder, own decoder."""
        assert self.fused_points is not None
        points: Tensor = self.fused_points(layers, grid, pyramid)
        return points

    def forward(
        self,
        layers: list[Tensor],
        grid: tuple[int, int],
        pyramid: Sequence[Tensor] = (),
        pixels: Tensor | None = None,
        point_layers: list[Tensor] | None = None,
    ) -> DenseOutput:
        """Read the dense maps off the tokens.

        Args:
            layers: encoder output (B, N, C), then the tokens (B, N, C') after each decoder block.
            grid: (rows, columns) of the patch grid; rows * columns == N.
            pyramid: the stem's maps at 1/2, 1/4, 1/8, for a fused head.
            pixels: (B, 3, H, W), for a fused head.
            point_layers: encoder output and the last tokens of the pointmap's own decoder blocks,
                for a head with ``own_points``; ``None`` there: no pointmap.
        """
        maps = self.raw(layers, grid, pyramid, pixels, point_layers)
        features = maps.features
        # Exponentials and norms need full precision whatever the tokens were computed in.
        with torch.autocast(layers[0].device.type, enabled=False):
            return dense_output(
                None if maps.points is None else maps.points.float(),
                None if features is None else features.float(),
                self.config,
            )


def build_head(
    config: HeadConfig,
    *,
    encoder_dim: int,
    decoder_dim: int,
    decoder_depth: int,
    patch_size: int = 16,
    pyramid_dims: Sequence[int] | None = None,
    own_points: bool = False,
) -> DenseHead:
    """Build the head that ``config`` describes.

    Args:
        config: kind, sizes, activations.
        encoder_dim: width of the encoder's tokens.
        decoder_dim: width of the decoder's tokens.
        decoder_depth: number of decoder blocks.
        patch_size: pixels a token stands for, along one side.
        pyramid_dims: channels of a convolutional stem at 1/2, 1/4, 1/8; ``None`` without one.
        own_points: the pointmap has decoder blocks and a pyramid of its own.

    Raises:
        ValueError: a fused head without a convolutional stem, own points without a fused head.
    """
    return DenseHead(
        config,
        encoder_dim=encoder_dim,
        decoder_dim=decoder_dim,
        decoder_depth=decoder_depth,
        patch_size=patch_size,
        pyramid_dims=pyramid_dims,
        own_points=own_points,
    )
