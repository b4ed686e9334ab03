"""A matcher in the form kornia uses: it drops in where ``kornia.feature.LoFTR`` stands."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matcher.errors import InputError
from matcher.pipeline import Matcher, PairOptions

__all__ = ["WidebaseModule"]


class WidebaseModule(nn.Module):
    """``forward({"image0", "image1"})`` for batches of tensors, with LoFTR's keys.

    Args:
        pretrained: as ``Matcher.from_pretrained``; ``None`` needs ``matcher``.
        matcher: a matcher to use instead of loading one.
        options: how pairs are matched.
    """

    def __init__(
        self,
        pretrained: str | None = "small",
        *,
        matcher: Matcher | None = None,
        options: PairOptions | None = None,
    ) -> None:
        super().__init__()
        if matcher is None:
            if pretrained is None:
                raise InputError("pretrained", "a model, or a matcher", "neither")
            matcher = Matcher.from_pretrained(pretrained, device="cpu", options=options)
        elif options is not None:
            matcher = Matcher(matcher.network, matcher.info, options)
        self.network = matcher.network
        self._matcher = matcher

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Match a batch of pairs.

        Args:
            data: ``image0`` (B, 1, H, W) or (B, 3, H, W), float in [0, 1] or uint8; ``image1`` with
                the same B and a size of its own; ``mask0`` and ``mask1`` (B, H, W), where matches
                are welcome, if wanted.

        Returns:
            ``keypoints0`` (N, 2) and ``keypoints1`` (N, 2), x then y, pixels; ``confidence`` (N,)
            in (0, 1]; ``batch_indexes`` (N,) int64, which pair each match belongs to.

        Raises:
            InputError: a missing key, a tensor of another shape, or an empty batch.
        """
        for key in ("image0", "image1"):
            if not isinstance(data.get(key), Tensor):
                raise InputError(key, "a tensor (B, 1 or 3, H, W)", type(data.get(key)).__name__)
            if data[key].ndim != 4 or data[key].shape[1] not in (1, 3):
                raise InputError(key, "shape (B, 1 or 3, H, W)", f"{tuple(data[key].shape)}")
        count = data["image0"].shape[0]
        if data["image1"].shape[0] != count:
            raise InputError("image1", f"{count} images, as image0", f"{data['image1'].shape[0]}")
        if count == 0:
            raise InputError("image0", "at least one image", "an empty batch")
        masks = [_mask_batch(data, side) for side in (0, 1)]
        device = data["image0"].device
        parts = []
        for row in range(count):
            mask0, mask1 = (None if m is None else m[row].bool().cpu() for m in masks)
            parts.append(
                self._matcher.match(
                    data["image0"][row].detach().cpu(),
                    data["image1"][row].detach().cpu(),
                    mask0=mask0,
                    mask1=mask1,
                    keep_pointmaps=False,
                ).matches
            )
        lengths = torch.tensor([len(part) for part in parts], dtype=torch.int64)
        return {
            "keypoints0": torch.cat([part.keypoints0 for part in parts]).to(device),
            "keypoints1": torch.cat([part.keypoints1 for part in parts]).to(device),
            "confidence": torch.cat([part.confidence for part in parts]).to(device),
            "batch_indexes": torch.arange(count).repeat_interleave(lengths).to(device),
        }


def _mask_batch(data: dict[str, Tensor], side: int) -> Tensor | None:
    mask = data.get(f"mask{side}")
    if mask is None:
        return None
    batch, _, height, width = data[f"image{side}"].shape
    if not isinstance(mask, Tensor) or mask.shape != (batch, height, width):
        actual = f"{tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"mask{side}", f"a tensor of shape ({batch}, {height}, {width})", actual)
    return mask
