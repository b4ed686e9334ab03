"""Masked cross-view completion with our own architecture (CroCo v2, section 3).

Most patches of view 0 are hidden; encoder and decoder of a two-view network restore them from what
is left and from the whole view 1. What is trained is the two-view network itself, less its heads:
its checkpoint initialises a training as it is.

Hidden patches are blanked in the image, before the stem. A convolutional stem sees far beyond a
patch, so that leaving out tokens behind it would not hide anything: their neighbours' tokens have
seen their pixels. Tokens of hidden patches are left out as well, as in CroCo: the encoder works on
the visible tenth, and a learned token stands for the rest before the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from heads.reconstruction import PatchPixelHead
from matcher.errors import InputError
from matcher.model.croco import denormalize_patches, patchify, unpatchify
from matcher.model.network import EncodedViews, TwoViewNetwork
from matcher.model.rope import grid_positions, rotary_tables
from matcher.training.losses import masked_patch_mse

__all__ = [
    "CompletionNetwork",
    "CompletionTerms",
    "CompletionValues",
    "blank_hidden",
    "completed_image",
    "completion_terms",
    "num_hidden",
    "random_hidden",
]


@dataclass(frozen=True, slots=True)
class CompletionValues:
    """The numbers of ``CompletionTerms``, for a log."""

    total: float
    num_patches: int


@dataclass(frozen=True, slots=True, eq=False)
class CompletionTerms:
    """The loss of a batch: mean squared error of normalised hidden patches; 1 is their mean grey.

    Attributes:
        total: what to minimise, ().
        num_patches: hidden patches, ().
        JUDGED_ON: what weighs the total where steps are averaged.
    """

    JUDGED_ON: ClassVar[Mapping[str, str]] = {"total": "num_patches"}

    total: Tensor
    num_patches: Tensor

    def values(self) -> CompletionValues:
        """The same as plain numbers."""
        return CompletionValues(float(self.total.detach()), int(self.num_patches))


def num_hidden(num_patches: int, mask_ratio: float) -> int:
    """How many of an image's patches are hidden; at least one is and one is not."""
    return min(max(1, int(mask_ratio * num_patches)), num_patches - 1)


def random_hidden(
    random: np.random.Generator, batch: int, num_patches: int, mask_ratio: float
) -> Tensor:
    """(batch, num_patches) bool, the same number of hidden patches in every row."""
    order = torch.from_numpy(random.random((batch, num_patches))).argsort(dim=1)
    return order < num_hidden(num_patches, mask_ratio)


def blank_hidden(pixels: Tensor, hidden: Tensor, patch_size: int) -> Tensor:
    """(B, 3, H, W) with the hidden patches at 0, the middle of [-1, 1]."""
    batch, _, height, width = pixels.shape
    rows, columns = height // patch_size, width // patch_size
    visible = (~hidden).reshape(batch, 1, rows, columns).to(pixels.dtype)
    shown = visible.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    return pixels * shown


class CompletionNetwork(nn.Module):
    """A two-view network that restores hidden patches.

    Args:
        two_view: whose encoder and decoder learn; its heads rest.
        mask_ratio: share of view 0's patches that is hidden.
    """

    def __init__(self, two_view: TwoViewNetwork, mask_ratio: float) -> None:
        super().__init__()
        self.two_view = two_view
        self.mask_ratio = mask_ratio
        config = two_view.config
        self.mask_token = nn.Parameter(torch.empty(config.encoder.embed_dim))
        self.pixels = PatchPixelHead(config.decoder.embed_dim, config.patch_size)
        nn.init.normal_(self.mask_token, std=0.02)
        nn.init.xavier_uniform_(self.pixels.proj.weight)
        nn.init.zeros_(self.pixels.proj.bias)

    def forward(self, pixels0: Tensor, pixels1: Tensor, hidden: Tensor) -> Tensor:
        """Restore view 0.

        Args:
            pixels0: (B, 3, H, W) in [-1, 1], the view to complete.
            pixels1: (B, 3, H1, W1) in [-1, 1], the view that helps.
            hidden: (B, N) bool, as ``random_hidden`` draws them.

        Returns:
            (B, N, 3 * p * p) normalised pixels of every patch, in the layout of ``patchify``.
        """
        view0 = self._encode_visible(pixels0, hidden)
        layers0, _ = self.two_view.decoder(view0, self.two_view.encode(pixels1))
        patches: Tensor = self.pixels(layers0[-1])
        return patches

    def _encode_visible(self, pixels: Tensor, hidden: Tensor) -> EncodedViews:
        encoder = self.two_view.encoder
        patch = self.two_view.config.patch_size
        stem = encoder.stem(blank_hidden(pixels, hidden, patch))
        batch, count, dim = stem.tokens.shape
        if tuple(hidden.shape) != (batch, count):
            raise InputError("hidden", f"shape {(batch, count)}", f"{tuple(hidden.shape)}")
        shown = count - num_hidden(count, self.mask_ratio)
        # A stable sort puts the visible patches first, in raster order, without asking the device.
        rows = hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, :shown]
        tokens = stem.tokens.gather(1, rows[..., None].expand(-1, -1, dim))
        rows_of_patches, columns = stem.grid
        positions = grid_positions(rows_of_patches, columns, pixels.device).reshape(1, count, 2)
        positions = positions.expand(batch, -1, -1).gather(1, rows[..., None].expand(-1, -1, 2))
        rotary = rotary_tables(positions, encoder.head_dim, encoder.rope_base)
        for block in encoder.blocks:
            tokens = block(tokens, rotary)
        tokens = encoder.norm(tokens)
        everywhere = self.mask_token.to(tokens.dtype).expand(batch, count, dim)
        whole = everywhere.scatter(1, rows[..., None].expand(-1, -1, dim), tokens)
        return EncodedViews(whole, stem.grid)


def completion_terms(
    patches: Tensor, pixels0: Tensor, hidden: Tensor, patch_size: int
) -> CompletionTerms:
    """The loss of (B, N, P) predicted patches of (B, 3, H, W) images, hidden patches alone."""
    error = masked_patch_mse(patches, patchify(pixels0, patch_size), hidden)
    return CompletionTerms(error, hidden.sum())


def completed_image(patches: Tensor, pixels0: Tensor, hidden: Tensor, patch_size: int) -> Tensor:
    """(B, 3, H, W): visible patches as they are, hidden ones as predicted.

    The network predicts normalised patches: their mean and contrast are taken from the truth.
    """
    true = patchify(pixels0, patch_size)
    shown = torch.where(hidden[..., None], denormalize_patches(patches.float(), true), true)
    grid = (pixels0.shape[2] // patch_size, pixels0.shape[3] // patch_size)
    return unpatchify(shown, grid, patch_size)
