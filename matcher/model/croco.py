"""CroCo: masked cross-view completion, the pretraining of the two-view network (CroCo 3).

Most patches of the first view are hidden; the decoder restores them from what is left and from the
whole second view. The trained encoder and decoder then initialise a two-view network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heads.reconstruction import PatchPixelHead
from matcher.errors import InputError
from matcher.model.attention import CrossBlock, SelfBlock, layer_norm
from matcher.model.config import CroCoConfig
from matcher.model.rope import RotaryTables, grid_positions, rotary_tables, sincos_table
from matcher.model.stem import PatchStem, StemOutput

__all__ = [
    "Completion",
    "CroCoNetwork",
    "CroCoTokens",
    "denormalize_patches",
    "patchify",
    "unpatchify",
]

_VARIANCE_OFFSET = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class CroCoTokens:
    """Encoded patches of a batch of images, all of them or the visible ones only.

    Attributes:
        tokens: (B, V, C) normalised encoder output.
        positions: (B, V, 2) int64 patch positions, y then x.
        grid: (rows, columns) of the whole patch grid.
        hidden: (B, N) bool, the patches left out, or ``None``: V == N.
    """

    tokens: Tensor
    positions: Tensor
    grid: tuple[int, int]
    hidden: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """What the network makes of a half-hidden view.

    Attributes:
        patches: (B, N, 3 * p * p) predicted patches, in the layout of ``patchify``.
        hidden: (B, N) bool, which patches of view 0 it did not see.
    """

    patches: Tensor
    hidden: Tensor


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(B, 3, H, W) -> (B, N, p * p * 3): patches in raster order, colour last inside a patch.

    Raises:
        InputError: H or W is not a multiple of the patch size.
    """
    if images.ndim != 4 or images.shape[2] % patch_size or images.shape[3] % patch_size:
        raise InputError(
            "images", f"(B, 3, H, W) with sides multiples of {patch_size}", f"{tuple(images.shape)}"
        )
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    cells = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)


def unpatchify(patches: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """The inverse of ``patchify``: (B, rows * columns, p * p * 3) -> (B, 3, H, W)."""
    if patches.ndim != 3 or patches.shape[1] != grid[0] * grid[1]:
        raise InputError("patches", f"(B, {grid[0] * grid[1]}, P)", f"{tuple(patches.shape)}")
    batch, (rows, columns) = patches.shape[0], grid
    cells = patches.reshape(batch, rows, columns, patch_size, patch_size, -1)
    images = cells.permute(0, 5, 1, 3, 2, 4)
    return images.reshape(batch, -1, rows * patch_size, columns * patch_size)


def denormalize_patches(prediction: Tensor, reference: Tensor) -> Tensor:
    """Give predicted patches the mean and (unbiased) variance of the true ones.

    Args:
        prediction: (B, N, P), trained against patches of mean 0 and variance 1.
        reference: (B, N, P), true patches.
    """
    variance, mean = torch.var_mean(reference, dim=-1, keepdim=True)
    return prediction * (variance + _VARIANCE_OFFSET).sqrt() + mean


class _CroCoEncoder(nn.Module):
    def __init__(self, config: CroCoConfig) -> None:
        super().__init__()
        self.stem = PatchStem(config.encoder.embed_dim, config.patch_size)
        self.blocks = nn.ModuleList(SelfBlock(config.encoder) for _ in range(config.encoder.depth))
        self.norm = layer_norm(config.encoder.embed_dim)


class _CroCoDecoder(nn.Module):
    def __init__(self, config: CroCoConfig) -> None:
        super().__init__()
        dim = config.decoder.embed_dim
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.embed = nn.Linear(config.encoder.embed_dim, dim)
        self.blocks = nn.ModuleList(CrossBlock(config.decoder) for _ in range(config.decoder.depth))
        self.norm = layer_norm(dim)


class CroCoNetwork(nn.Module):
    """Encoder, decoder and pixel head for masked cross-view completion (CroCo 3, CroCo v2 3)."""

    encoder_positions: Tensor | None
    decoder_positions: Tensor | None

    def __init__(self, config: CroCoConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _CroCoEncoder(config)
        self.decoder = _CroCoDecoder(config)
        self.head = PatchPixelHead(config.decoder.embed_dim, config.patch_size)
        rows, columns = (side // config.patch_size for side in config.image_size)
        is_additive = config.positions == "cosine"
        # Released CroCo v1 files carry these two tables, so they belong to the state.
        for name, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
            table = sincos_table(rows, columns, stack.embed_dim) if is_additive else None
            self.register_buffer(f"{name}_positions", table)
        self._initialise()

    def random_mask(
        self, batch: int, num_patches: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """(batch, num_patches) bool, the same number of hidden patches in every row (CroCo 3.2).

        Args:
            batch: number of rows.
            num_patches: patches of an image.
            generator: source of the randomness, on the CPU.
        """
        noise = torch.rand(batch, num_patches, generator=generator)
        return self.mask_from_noise(noise)

    def mask_from_noise(self, noise: Tensor) -> Tensor:
        """(B, N) bool from (B, N) numbers: a random permutation's ranks below the hidden share."""
        return noise.argsort(dim=1) < int(self.config.mask_ratio * noise.shape[1])

    def encode(self, pixels: Tensor, hidden: Tensor | None = None) -> CroCoTokens:
        """Encode the visible patches.

        Args:
            pixels: (B, 3, H, W) in [-1, 1]; H and W multiples of the patch size, and equal to the
                configuration's image size when positions are additive.
            hidden: (B, N) bool, as many hidden patches in every row, or ``None``: all are visible.

        Raises:
            InputError: another shape.
        """
        views, layers = self._encoder_layers(pixels, hidden)
        return CroCoTokens(layers[-1], views.positions, views.grid, hidden)

    def encoder_layers(self, pixels: Tensor) -> list[Tensor]:
        """(B, N, C) tokens after every encoder block, nothing hidden; the last is normalised."""
        return self._encoder_layers(pixels, None)[1]

    def decode(self, view0: CroCoTokens, view1: CroCoTokens) -> Tensor:
        """(B, N, C') tokens of the whole view 0; view 1 must have nothing hidden."""
        return self.decoder_layers(view0, view1)[-1]

    def decoder_layers(self, view0: CroCoTokens, view1: CroCoTokens) -> list[Tensor]:
        """(B, N, C') tokens of view 0 after every decoder block; the last is normalised.

        Unlike in the two-view network, the second view's tokens stay as they were encoded.
        """
        if view1.hidden is not None:
            raise InputError("view1", "a view without hidden patches", "hidden patches")
        tokens = self._with_mask_tokens(self.decoder.embed(view0.tokens), view0.hidden)
        memory = self.decoder.embed(view1.tokens)
        rotary0 = rotary1 = None
        if self.decoder_positions is None:
            rotary0 = self._decoder_rotary(view0.grid, tokens.device)
            rotary1 = self._decoder_rotary(view1.grid, tokens.device)
        else:
            tokens = tokens + self.decoder_positions
            memory = memory + self.decoder_positions
        layers = []
        for block in self.decoder.blocks:
            tokens = block(tokens, memory, rotary0, rotary1)
            layers.append(tokens)
        layers[-1] = self.decoder.norm(layers[-1])
        return layers

    def forward(
        self,
        pixels0: Tensor,
        pixels1: Tensor,
        hidden: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Completion:
        """Hide patches of view 0 and restore them with the help of view 1.

        Args:
            pixels0: (B, 3, H, W) in [-1, 1], the view to complete.
            pixels1: (B, 3, H', W') in [-1, 1], the view that helps.
            hidden: (B, N) bool, what to hide; ``None``: drawn at random.
            generator: source of that randomness, on the CPU.
        """
        if hidden is None:
            patch = self.config.patch_size
            num_patches = (pixels0.shape[-2] // patch) * (pixels0.shape[-1] // patch)
            hidden = self.random_mask(pixels0.shape[0], num_patches, generator)
        hidden = hidden.to(pixels0.device)
        tokens = self.decode(self.encode(pixels0, hidden), self.encode(pixels1))
        return Completion(self.head(tokens), hidden)

    def _encoder_layers(
        self, pixels: Tensor, hidden: Tensor | None
    ) -> tuple[CroCoTokens, list[Tensor]]:
        self._check_pixels(pixels)
        stem: StemOutput = self.encoder.stem(pixels)
        tokens = stem.tokens
        if self.encoder_positions is not None:
            tokens = tokens + self.encoder_positions
        batch = tokens.shape[0]
        positions = grid_positions(*stem.grid, device=pixels.device).expand(batch, -1, -1)
        if hidden is not None:
            tokens = _select_visible(tokens, hidden)
            positions = _select_visible(positions, hidden)
        rotary = None
        if self.encoder_positions is None:
            stack = self.config.encoder
            head_dim = stack.embed_dim // stack.num_heads
            rotary = rotary_tables(positions, head_dim, self.config.rope_base)
        layers = []
        for block in self.encoder.blocks:
            tokens = block(tokens, rotary)
            layers.append(tokens)
        layers[-1] = self.encoder.norm(layers[-1])
        return CroCoTokens(layers[-1], positions, stem.grid, hidden), layers

    def _with_mask_tokens(self, visible: Tensor, hidden: Tensor | None) -> Tensor:
        if hidden is None:
            return visible
        # Visible tokens come in raster order: a running count finds each one's place.
        rank = ((~hidden).cumsum(dim=1) - 1).clamp_min(0)
        spread = visible.gather(1, rank[..., None].expand(-1, -1, visible.shape[-1]))
        return torch.where(hidden[..., None], self.decoder.mask_token.to(spread.dtype), spread)

    def _decoder_rotary(self, grid: tuple[int, int], device: torch.device) -> RotaryTables:
        stack = self.config.decoder
        positions = grid_positions(*grid, device=device)
        return rotary_tables(positions, stack.embed_dim // stack.num_heads, self.config.rope_base)

    def _check_pixels(self, pixels: Tensor) -> None:
        patch, size = self.config.patch_size, self.config.image_size
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.numel():
            raise InputError("pixels", "shape (B, 3, H, W)", f"{tuple(pixels.shape)}")
        if self.config.positions == "cosine" and tuple(pixels.shape[2:]) != size:
            raise InputError(
                "pixels", f"{size[0]} x {size[1]} (additive positions)", f"{tuple(pixels.shape)}"
            )
        if pixels.shape[2] % patch or pixels.shape[3] % patch:
            raise InputError("pixels", f"sides multiples of {patch}", f"{tuple(pixels.shape[2:])}")

    def _initialise(self) -> None:
        nn.init.normal_(self.decoder.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)


def _select_visible(rows: Tensor, hidden: Tensor) -> Tensor:
    """(B, N, C) -> (B, V, C): the rows that are not hidden, in order."""
    if hidden.dtype != torch.bool or hidden.shape != rows.shape[:2]:
        raise InputError(
            "hidden", f"bool {tuple(rows.shape[:2])}", f"{hidden.dtype} {tuple(hidden.shape)}"
        )
    visible = ~hidden
    counts = visible.sum(dim=1)
    if not bool((counts == counts[0]).all()) or not bool(counts[0]):
        raise InputError(
            "hidden",
            "the same positive number of visible patches in every row",
            f"{counts.tolist()}",
        )
    return rows[visible].reshape(rows.shape[0], -1, rows.shape[-1])
