"""The two-view network, with its public ``encode`` / ``decode`` split (DUSt3R 3.1, MASt3R 3.2)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heads import DenseHead, DenseOutput, RawMaps, build_head
from heads.local_features import FusedHead, FusedPoints
from matcher.errors import InputError
from matcher.model.attention import CrossBlock, SelfBlock, layer_norm
from matcher.model.config import ModelConfig
from matcher.model.rope import RotaryTables, grid_positions, rotary_tables
from matcher.model.stem import PYRAMID_DIMS, ConvolutionalStem, PatchStem, StemOutput
from matcher.structures import PairPrediction

__all__ = ["EncodedViews", "TwoViewNetwork"]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedViews:
    """A batch of encoded images of one shape: all that ``decode`` needs of them.

    Attributes:
        tokens: (B, N, C) encoder output.
        grid: (rows, columns) of the patch grid.
        pyramid: the convolutional stem's maps at 1/2, 1/4, 1/8, or empty.
        pixels: (B, 3, H, W), kept for a fused head, or ``None``.
    """

    tokens: Tensor
    grid: tuple[int, int]
    pyramid: tuple[Tensor, ...] = ()
    pixels: Tensor | None = None

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def __getitem__(self, index: int | slice) -> EncodedViews:
        """Some of the images; a single one keeps its batch dimension, of 1."""
        if isinstance(index, slice):
            rows = index
        else:
            rows = slice(index, index + 1) if index != -1 else slice(-1, None)
        return EncodedViews(
            self.tokens[rows],
            self.grid,
            tuple(level[rows] for level in self.pyramid),
            None if self.pixels is None else self.pixels[rows],
        )

    def float(self) -> EncodedViews:
        """The same in float32."""
        return EncodedViews(
            self.tokens.float(),
            self.grid,
            tuple(level.float() for level in self.pyramid),
            None if self.pixels is None else self.pixels.float(),
        )

    @property
    def shape_key(self) -> Hashable:
        """Views with equal keys can be stacked."""
        return self.grid

    @classmethod
    def stack(cls, views: Sequence[EncodedViews]) -> EncodedViews:
        """Join batches of one shape along the batch dimension."""
        first = views[0]
        return cls(
            torch.cat([view.tokens for view in views]),
            first.grid,
            tuple(
                torch.cat([view.pyramid[level] for view in views])
                for level in range(len(first.pyramid))
            ),
            None
            if first.pixels is None
            else torch.cat([view.pixels for view in views if view.pixels is not None]),
        )


class Encoder(nn.Module):
    """Pixels -> normalised tokens: stem, self-attention blocks, layer norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.encoder.embed_dim
        self.stem: PatchStem | ConvolutionalStem = (
            PatchStem(dim, config.patch_size) if config.stem == "patch" else ConvolutionalStem(dim)
        )
        self.blocks = nn.ModuleList(SelfBlock(config.encoder) for _ in range(config.encoder.depth))
        self.norm = layer_norm(dim)
        self.rope_base = config.rope_base
        self.head_dim = dim // config.encoder.num_heads

    def forward(self, pixels: Tensor) -> EncodedViews:
        """``pixels``: (B, 3, H, W) in [-1, 1]."""
        stem: StemOutput = self.stem(pixels)
        positions = grid_positions(*stem.grid, device=pixels.device)
        rotary = rotary_tables(positions, self.head_dim, self.rope_base)
        tokens = stem.tokens
        for block in self.blocks:
            tokens = block(tokens, rotary)
        return EncodedViews(
            self.norm(tokens), stem.grid, stem.pyramid, pixels if stem.pyramid else None
        )


class Decoder(nn.Module):
    """Two stacks that attend to each other; both read the other's previous layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.decoder.embed_dim
        self.embed = nn.Linear(config.encoder.embed_dim, dim)
        depth = range(config.decoder.depth)
        self.blocks0 = nn.ModuleList(CrossBlock(config.decoder) for _ in depth)
        self.blocks1: nn.ModuleList | None = None
        self.view_embed: nn.Parameter | None = None
        if config.share_views:
            self.view_embed = nn.Parameter(torch.zeros(2, dim))
        else:
            self.blocks1 = nn.ModuleList(CrossBlock(config.decoder) for _ in depth)
        self.norm = layer_norm(dim)
        self.rope_base = config.rope_base
        self.head_dim = dim // config.decoder.num_heads

    def forward(
        self, view0: EncodedViews, view1: EncodedViews, depth: int | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Token lists of both sides: encoder output, then every block's (the last normalised).

        ``depth``: only the first so many blocks, and none of their tokens normalised.
        """
        side0, side1 = self.embed(view0.tokens), self.embed(view1.tokens)
        if self.view_embed is not None:
            side0 = side0 + self.view_embed[0]
            side1 = side1 + self.view_embed[1]
        rotary0, rotary1 = self.rotary(view0), self.rotary(view1)
        layers0, layers1 = [view0.tokens], [view1.tokens]
        blocks1 = self.blocks0 if self.blocks1 is None else self.blocks1
        for block0, block1 in zip(self.blocks0[:depth], blocks1[:depth], strict=True):
            side0, side1 = (
                block0(side0, side1, rotary0, rotary1),
                block1(side1, side0, rotary1, rotary0),
            )
            layers0.append(side0)
            layers1.append(side1)
        if depth is None:
            layers0[-1], layers1[-1] = self.norm(layers0[-1]), self.norm(layers1[-1])
        return layers0, layers1

    def rotary(self, view: EncodedViews) -> RotaryTables:
        """The positions of a view's tokens."""
        positions = grid_positions(*view.grid, device=view.tokens.device)
        return rotary_tables(positions, self.head_dim, self.rope_base)


class PointsDecoder(nn.Module):
    """The last decoder blocks once more, for pointmaps alone; both views share them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrossBlock(config.decoder) for _ in range(config.points_depth))
        self.norm = layer_norm(config.decoder.embed_dim)

    def forward(
        self, side0: Tensor, side1: Tensor, rotary0: RotaryTables, rotary1: RotaryTables
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, C') where the two trunks part -> their last, normalised."""
        for block in self.blocks:
            side0, side1 = (
                block(side0, side1, rotary0, rotary1),
                block(side1, side0, rotary1, rotary0),
            )
        return self.norm(side0), self.norm(side1)


class TwoViewNetwork(nn.Module):
    """Two images in, two pointmaps in camera 0's frame and two descriptor maps out.

    ``encode`` sees one image and can be cached: N images cost N encodings whatever the pairs.
    ``decode`` sees two encoded images. Both take batches of one shape; ``encode_each`` and
    ``decode_each`` take any mixture of shapes and group them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.points_decoder = PointsDecoder(config) if config.points_depth else None

        def head() -> DenseHead:
            return build_head(
                config.head,
                encoder_dim=config.encoder.embed_dim,
                decoder_dim=config.decoder.embed_dim,
                decoder_depth=config.decoder.depth,
                patch_size=config.patch_size,
                pyramid_dims=PYRAMID_DIMS if config.stem == "convolutional" else None,
                own_points=config.points_depth > 0,
            )

        self.head0 = head()
        self.head1: DenseHead | None = None if config.share_views else head()
        _initialise(self)

    def encode(self, pixels: Tensor) -> EncodedViews:
        """Encode a batch of images of one shape.

        Args:
            pixels: (B, 3, H, W) float RGB in [-1, 1]; H and W multiples of the patch size.

        Raises:
            InputError: another shape.
        """
        patch = self.config.patch_size
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise InputError("pixels", "shape (B, 3, H, W)", f"{tuple(pixels.shape)}")
        if pixels.shape[2] % patch or pixels.shape[3] % patch or not pixels.numel():
            raise InputError(
                "pixels", f"height and width multiples of {patch}", f"{tuple(pixels.shape[2:])}"
            )
        encoded: EncodedViews = self.encoder(pixels)
        return encoded

    def decode(
        self, view0: EncodedViews, view1: EncodedViews, *, points: bool = True
    ) -> PairPrediction:
        """Decode a batch of pairs; row i of ``view0`` goes with row i of ``view1``.

        Args:
            view0: encoded images.
            view1: as many.
            points: false: pointmaps are not needed. They are left out where they have a trunk of
                their own, which spares a fifth of the work.

        Returns:
            both views' dense maps (B, H, W, ...), pointmaps in camera 0's frame.

        Raises:
            InputError: the two batches differ in length.
        """
        if len(view0) != len(view1):
            raise InputError("view1", f"as many images as view0 ({len(view0)})", f"{len(view1)}")
        layers0, layers1 = self.decoder(view0, view1)
        points0 = points1 = None
        if points or not self.config.head.separate_descriptor_confidence:
            points0, points1 = self.point_layers(layers0, layers1, view0, view1)
        head1 = self.head0 if self.head1 is None else self.head1
        return PairPrediction(
            _apply_head(self.head0, layers0, view0, points0),
            _apply_head(head1, layers1, view1, points1),
        )

    def point_layers(
        self,
        layers0: list[Tensor],
        layers1: list[Tensor],
        view0: EncodedViews,
        view1: EncodedViews,
    ) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        """Encoder's and last tokens of the pointmap's own trunk; ``None`` where it shares one.

        ``layers0``, ``layers1``: of the decoder, at least up to the block where the trunks part.
        """
        if self.points_decoder is None:
            return None, None
        parting = self.config.shared_depth
        last0, last1 = self.points_decoder(
            layers0[parting],
            layers1[parting],
            self.decoder.rotary(view0),
            self.decoder.rotary(view1),
        )
        return [view0.tokens, last0], [view1.tokens, last1]

    def forward(self, pixels0: Tensor, pixels1: Tensor) -> PairPrediction:
        """Encode and decode a batch of pairs.

        Args:
            pixels0: (B, 3, H0, W0) in [-1, 1].
            pixels1: (B, 3, H1, W1) in [-1, 1].
        """
        return self.decode(*self._encode_both(pixels0, pixels1))

    def forward_raw(
        self, pixels0: Tensor, pixels1: Tensor, *, features: bool = True, points: bool = True
    ) -> tuple[RawMaps, RawMaps]:
        """``forward`` without activations: for training, which looks at few of the pixels.

        Where pointmaps have their own trunk, ``features=False`` leaves out what they do not need,
        and ``points=False`` leaves them out.
        """
        view0, view1 = self._encode_both(pixels0, pixels1)
        head1 = self.head0 if self.head1 is None else self.head1
        if not features and self.points_decoder is not None:
            layers0, layers1 = self.decoder(view0, view1, self.config.shared_depth)
            points0, points1 = self.point_layers(layers0, layers1, view0, view1)
            assert points0 is not None
            assert points1 is not None
            return (
                RawMaps(self.head0.raw_points(points0, view0.grid, view0.pyramid)),
                RawMaps(head1.raw_points(points1, view1.grid, view1.pyramid)),
            )
        layers0, layers1 = self.decoder(view0, view1)
        points0 = points1 = None
        if points:
            points0, points1 = self.point_layers(layers0, layers1, view0, view1)
        return (
            self.head0.raw(layers0, view0.grid, view0.pyramid, view0.pixels, points0),
            head1.raw(layers1, view1.grid, view1.pyramid, view1.pixels, points1),
        )

    def _encode_both(self, pixels0: Tensor, pixels1: Tensor) -> tuple[EncodedViews, EncodedViews]:
        if pixels0.shape != pixels1.shape:
            return self.encode(pixels0), self.encode(pixels1)
        both = self.encode(torch.cat([pixels0, pixels1]))
        half = pixels0.shape[0]
        return both[:half], both[half:]

    def encode_each(self, images: Sequence[Tensor]) -> list[EncodedViews]:
        """Encode (3, H, W) images of any mixture of shapes, portrait and landscape together."""
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            groups[tuple(image.shape)].append(index)
        encoded: dict[int, EncodedViews] = {}
        for members in groups.values():
            batch = self.encode(torch.stack([images[index] for index in members]))
            encoded.update((index, batch[row]) for row, index in enumerate(members))
        return [encoded[index] for index in range(len(images))]

    def decode_each(
        self,
        views0: Sequence[EncodedViews],
        views1: Sequence[EncodedViews],
        *,
        points: bool = True,
    ) -> list[PairPrediction]:
        """Decode pairs of any mixture of shapes; each result has a batch dimension of 1."""
        if len(views0) != len(views1):
            raise InputError("views1", f"as many as views0 ({len(views0)})", f"{len(views1)}")
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for index, (view0, view1) in enumerate(zip(views0, views1, strict=True)):
            groups[view0.shape_key, view1.shape_key].append(index)
        decoded: dict[int, PairPrediction] = {}
        for members in groups.values():
            batch = self.decode(
                EncodedViews.stack([views0[index] for index in members]),
                EncodedViews.stack([views1[index] for index in members]),
                points=points,
            )
            for row, index in enumerate(members):
                decoded[index] = PairPrediction(batch.output0[row], batch.output1[row])
        return [decoded[index] for index in range(len(views0))]

    @property
    def num_parameters(self) -> int:
        """Number of distinct parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


def _apply_head(
    head: nn.Module, layers: list[Tensor], view: EncodedViews, point_layers: list[Tensor] | None
) -> DenseOutput:
    output: DenseOutput = head(layers, view.grid, view.pyramid, view.pixels, point_layers)
    return output


def _initialise(network: nn.Module) -> None:
    """Xavier for linear layers, zero biases, as is usual for such transformers."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, FusedHead | FusedPoints):
            # Raw distances and confidences pass an exponential: they must start near zero. The
            # stem's maps have a spread of about ten.
            for lateral in module.lateral:
                assert isinstance(lateral, nn.Conv2d)
                nn.init.normal_(lateral.weight, std=0.1 * lateral.in_channels**-0.5)
            if module.points_places is not None:
                nn.init.zeros_(module.points_places.weight)
            if module.points_out is not None:
                nn.init.normal_(module.points_out.weight, std=1e-3)
                assert module.points_out.bias is not None
                nn.init.constant_(module.points_out.bias, 0.1)
            if isinstance(module, FusedHead):
                nn.init.normal_(module.features_out.weight, std=0.01)
