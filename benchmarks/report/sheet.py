"""A sheet of the pairs that went best and worst, with their matches."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from benchmarks.core.samples import FloatArray
from benchmarks.core.tasks import UnitScore
from benchmarks.report.style import write_bytes
from matcher.drawing import draw_matches
from matcher.errors import InputError
from matcher.images import RgbArray

__all__ = ["PairPicture", "best_and_worst", "draw_pair_sheet"]

_PICTURE_HEIGHT = 320  # what draw_matches draws at least: letters keep their size
_CELL = (760, 370)  # width, height
_GAP, _HEADING_HEIGHT = 12, 64
_BACKGROUND, _TEXT = (24, 25, 28), (226, 227, 230)
_MAX_BYTES = 300_000
_QUALITIES = (88, 80, 72, 64, 55)


@dataclass(frozen=True, slots=True, eq=False)
class PairPicture:
    """A pair to show.

    Attributes:
        caption: one line: name, error, matches.
        image0, image1: (H, W, 3) uint8 RGB.
        keypoints0, keypoints1: (M, 2) pixels of these images, x then y.
        confidence: (M,) in (0, 1].
        correct: (M,) bool; wrong ones are drawn in red. ``None``: not known.
    """

    caption: str
    image0: RgbArray
    image1: RgbArray
    keypoints0: FloatArray
    keypoints1: FloatArray
    confidence: FloatArray
    correct: npt.NDArray[np.bool_] | None = None


def best_and_worst(
    scores: Sequence[UnitScore], count: int = 3
) -> tuple[tuple[UnitScore, ...], tuple[UnitScore, ...]]:
    """The units of smallest and of largest error; never one unit on both sides.

    Among the worst of equal error, those with the most matches come first: what fails in spite of
    them tells more than what found nothing. Failures without a match are left out: they show
    nothing.
    """
    answered = [score for score in scores if score.num_matches or not score.failure]
    ordered = sorted(answered, key=lambda score: (score.error, -score.num_matches))
    best = tuple(score for score in ordered[:count] if math.isfinite(score.error))
    rest = ordered[len(best) :]
    worst = sorted(rest, key=lambda score: (-score.error, -score.num_matches))
    return best, tuple(worst[:count])


def draw_pair_sheet(
    best: Sequence[PairPicture], worst: Sequence[PairPicture], path: Path, *, title: str = ""
) -> bool:
    """The best pairs on the left, the worst on the right; a JPEG of at most 300 kB where possible.

    Returns:
        Whether there was a pair to draw; no file is written otherwise.

    Raises:
        InputError: ``path`` does not end in .jpg, cannot be written, or a pair is malformed.
    """
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        raise InputError("path", "a name that ends in .jpg", repr(path.name))
    columns = [(name, pairs) for name, pairs in (("Best", best), ("Worst", worst)) if pairs]
    if not columns:
        return False
    rows = max(len(pairs) for _, pairs in columns)
    width = len(columns) * (_CELL[0] + _GAP) + _GAP
    height = _HEADING_HEIGHT + rows * (_CELL[1] + _GAP)
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=24)
    for column, (name, pairs) in enumerate(columns):
        left = _GAP + column * (_CELL[0] + _GAP)
        heading = f"{name}: {title}" if title and column == 0 else name
        pen.text((left + 28, _HEADING_HEIGHT / 2), heading, _TEXT, font, anchor="lm")
        for row, pair in enumerate(pairs):
            cell = _cell(pair)
            top = _HEADING_HEIGHT + row * (_CELL[1] + _GAP)
            sheet.paste(cell, (left, top))
    write_bytes(path, _jpeg(sheet))
    return True


def _cell(pair: PairPicture) -> Image.Image:
    image0, scale0 = _at_height(pair.image0)
    image1, scale1 = _at_height(pair.image1)
    picture = draw_matches(
        image0,
        image1,
        (np.asarray(pair.keypoints0) + 0.5) * scale0 - 0.5,
        (np.asarray(pair.keypoints1) + 0.5) * scale1 - 0.5,
        pair.confidence,
        inlier_mask=pair.correct,
        max_matches=120,
        title=pair.caption,
    )
    cell = Image.fromarray(picture)
    cell.thumbnail(_CELL, Image.Resampling.LANCZOS)
    return cell


def _at_height(image: RgbArray) -> tuple[RgbArray, FloatArray]:
    """The image at the sheet's height, and the factors of x and y."""
    height, width = image.shape[:2]
    new_width = max(1, round(width * _PICTURE_HEIGHT / height))
    flag = cv2.INTER_AREA if height > _PICTURE_HEIGHT else cv2.INTER_CUBIC
    resized = cv2.resize(image, (new_width, _PICTURE_HEIGHT), interpolation=flag)
    return np.asarray(resized), np.array([new_width / width, _PICTURE_HEIGHT / height])


def _jpeg(sheet: Image.Image) -> bytes:
    content = b""
    for quality in _QUALITIES:
        stream = io.BytesIO()
        sheet.save(stream, "JPEG", quality=quality, optimize=True)
        content = stream.getvalue()
        if len(content) <= _MAX_BYTES:
            break
    return content
