"""Contact sheets: rows of pictures with a caption above each column."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

__all__ = ["RgbArray", "coloured_depth", "picture_rows", "to_bytes"]

RgbArray = npt.NDArray[np.uint8]
_GAP, _CAPTION = 6, 22
_BACKGROUND, _TEXT = 24, (226, 227, 230)


def to_bytes(pixels: Tensor) -> RgbArray:
    """(3, H, W) in [-1, 1] to (H, W, 3) uint8."""
    values = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round()
    picture: RgbArray = values.permute(1, 2, 0).cpu().numpy().astype(np.uint8)
    return picture


def coloured_depth(depth: npt.NDArray[np.floating], valid: npt.NDArray[np.bool_]) -> RgbArray:
    """(H, W) depths as colours, near is warm; what is not known is dark grey."""
    picture = np.full((*depth.shape, 3), 40, dtype=np.uint8)
    if valid.any():
        nearness = 1 / np.maximum(depth[valid], 1e-6)
        low, high = np.quantile(nearness, (0.02, 0.98))
        scaled = np.clip((nearness - low) / max(high - low, 1e-12), 0, 1)
        index = np.rint(scaled * 255).astype(np.uint8)[:, None]
        picture[valid] = cv2.applyColorMap(index, cv2.COLORMAP_TURBO)[:, 0, ::-1]
    return picture


def picture_rows(rows: Sequence[Sequence[RgbArray]], captions: Sequence[str]) -> RgbArray:
    """Rows of (H, W, 3) pictures of one size on one sheet, a caption above each column."""
    height, width = rows[0][0].shape[:2]
    across = len(captions) * (width + _GAP) + _GAP
    down = _CAPTION + len(rows) * (height + _GAP) + _GAP
    sheet = np.full((down, across, 3), _BACKGROUND, dtype=np.uint8)
    for column, caption in enumerate(captions):
        left = _GAP + column * (width + _GAP)
        cv2.putText(
            sheet,
            caption,
            (left, _CAPTION - 7),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.42,
            _TEXT,
            1,
            cv2.LINE_AA,
        )
        for row, pictures in enumerate(rows):
            top = _CAPTION + row * (height + _GAP)
            sheet[top : top + height, left : left + width] = pictures[column]
    return sheet
