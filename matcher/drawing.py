"""Pictures of matches that a person enjoys looking at.

Two photographs lie beside each other (panoramas: one above the other) on dark charcoal; a thin line
joins the two places of each match. The colour of a line tells where in image 0 it starts, so that
one sees at a glance where each region of the scene went.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from matcher.errors import InputError
from matcher.images.writing import check_picture_path, write_picture
from matcher.matching.select import top_k_rows
from matcher.structures import FloatArray, ImageSize, as_keypoints

__all__ = ["check_picture_path", "draw_matches", "write_picture"]

RgbArray = npt.NDArray[np.uint8]
RowArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_BACKGROUND = (24, 25, 28)
_TEXT = (226, 227, 230)
_QUIET_TEXT = (142, 145, 152)
_RIM = (16, 17, 20)
_OUTLIER = (176, 74, 74)
# Gold, green, turquoise, blue, violet, pink. Red stays free: it means an outlier.
_COLOUR_ANCHORS = (
    (255, 200, 70),
    (140, 215, 95),
    (50, 210, 195),
    (80, 160, 255),
    (165, 120, 255),
    (255, 125, 215),
)
_COLOUR_QUANTILES = (0.03, 0.97)
_SHARE_ACROSS = 0.75
_LIGHTNESS_SPAN = 16.0

_MAX_WIDTH = 2000
_MIN_WIDTH = 420
_PICTURE_SIDES = (320, 960)  # smallest and largest common side, pixels
_MARGIN, _GAP, _CAPTION_HEIGHT = 28, 16, 60
_FONT_SIZE, _SMALLEST_FONT_SIZE = 24, 12
_PANORAMA_ASPECT = 2.0
_CORNER_RADIUS = 6
_SUBPIXEL_BITS = 4  # OpenCV's `shift`: places are given in 1/16 px


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where one photograph lies on the canvas."""

    source: ImageSize
    left: int
    top: int
    width: int
    height: int

    def to_canvas(self, keypoints: FloatArray) -> FloatArray:
        """(M, 2) pixels of the photograph to pixels of the canvas, centres at integers."""
        scale = np.array([self.width / self.source.width, self.height / self.source.height])
        placed: FloatArray = (keypoints + 0.5) * scale - 0.5 + np.array([self.left, self.top])
        return placed


def draw_matches(
    image0: RgbArray,
    image1: RgbArray,
    keypoints0: npt.ArrayLike,
    keypoints1: npt.ArrayLike,
    confidence: npt.ArrayLike,
    *,
    inlier_mask: npt.ArrayLike | None = None,
    max_matches: int = 200,
    title: str | None = None,
) -> RgbArray:
    """Draw two photographs and the matches between them.

    The most confident matches are drawn, spread over image 0. With an ``inlier_mask`` the outliers
    lie beneath in a faint red, in the same proportion as among all matches.

    Args:
        image0: (H, W, 3) uint8 RGB, any size.
        image1: (H', W', 3) uint8 RGB.
        keypoints0: (M, 2) pixels of image 0, x then y, pixel centres at integers. A match with an
            end outside its photograph is counted but not drawn.
        keypoints1: (M, 2) pixels of image 1.
        confidence: (M,) in (0, 1].
        inlier_mask: (M,) bool, which matches agree with the pose.
        max_matches: draw at most so many; 0 draws none.
        title: the line under the photographs; by default the number of matches and inliers.

    Returns:
        (H'', W'', 3) uint8 RGB, at most 2000 pixels wide.

    Raises:
        InputError: wrong shapes or types, numbers that are not finite, a negative ``max_matches``.
    """
    size0, size1 = _image_size("image0", image0), _image_size("image1", image1)
    starts, ends = as_keypoints("keypoints0", keypoints0), as_keypoints("keypoints1", keypoints1)
    scores = np.asarray(confidence, dtype=np.float64)
    is_inlier = None if inlier_mask is None else np.asarray(inlier_mask)
    _check_matches(starts, ends, scores, is_inlier)
    if max_matches < 0:
        raise InputError("max_matches", "at least 0", f"{max_matches}")

    placed0, placed1, canvas_size = _lay_out(size0, size1)
    canvas = np.empty((canvas_size.height, canvas_size.width, 3), np.uint8)
    canvas[:] = _BACKGROUND
    _paste(canvas, image0, placed0)
    _paste(canvas, image1, placed1)

    candidates = np.flatnonzero(_lies_in(starts, size0) & _lies_in(ends, size1))
    inliers, outliers = _choose(starts, scores, is_inlier, candidates, size0, max_matches)
    canvas_starts, canvas_ends = placed0.to_canvas(starts), placed1.to_canvas(ends)
    outlier_colours = np.tile(np.array(_OUTLIER, np.uint8), (len(outliers), 1))
    inlier_colours = _position_colours(starts[inliers])
    canvas = _draw_layer(
        canvas, canvas_starts[outliers], canvas_ends[outliers], outlier_colours, faint=True
    )
    canvas = _draw_layer(
        canvas, canvas_starts[inliers], canvas_ends[inliers], inlier_colours, faint=False
    )
    num_shown = len(inliers) + len(outliers)
    aside = f"{num_shown} shown" if 0 < num_shown < len(starts) else ""
    return _with_caption(canvas, title or _summary(len(starts), is_inlier), aside)


def _image_size(argument: str, image: RgbArray) -> ImageSize:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = f"{image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(argument, "a uint8 array", kind)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(argument, "shape (H, W, 3)", f"{image.shape}")
    return ImageSize(image.shape[0], image.shape[1])


def _check_matches(
    starts: FloatArray, ends: FloatArray, scores: FloatArray, is_inlier: npt.NDArray[Any] | None
) -> None:
    count = len(starts)
    if len(ends) != count:
        raise InputError("keypoints1", f"{count} rows, as keypoints0", f"{len(ends)}")
    if scores.shape != (count,):
        raise InputError("confidence", f"shape ({count},)", f"{scores.shape}")
    if not np.isfinite(scores).all():
        raise InputError("confidence", "finite numbers", "NaN or infinity")
    if is_inlier is not None and (is_inlier.shape != (count,) or is_inlier.dtype != np.bool_):
        raise InputError(
            "inlier_mask", f"{count} booleans", f"{is_inlier.dtype} of shape {is_inlier.shape}"
        )


def _lay_out(size0: ImageSize, size1: ImageSize) -> tuple[_Placed, _Placed, ImageSize]:
    """Both photographs at a common height beside each other, or at a common width if panoramas."""
    sizes = (size0, size1)
    is_stacked = all(size.width >= _PANORAMA_ASPECT * size.height for size in sizes)
    room = _MAX_WIDTH - 2 * _MARGIN - (0 if is_stacked else _GAP)
    if is_stacked:
        wanted = np.clip(max(size.width for size in sizes), _MIN_WIDTH - 2 * _MARGIN, room)
        shapes = [(_side(wanted * size.height / size.width), _side(wanted)) for size in sizes]
        inner = (shapes[0][0] + _GAP + shapes[1][0], shapes[0][1])
    else:
        wanted = np.clip(max(size.height for size in sizes), *_PICTURE_SIDES)
        # Two slivers of less than a pixel may have been rounded up: leave room for them.
        wanted = min(wanted, (room - 2) / sum(size.width / size.height for size in sizes))
        shapes = [(_side(wanted), _side(wanted * size.width / size.height)) for size in sizes]
        inner = (shapes[0][0], shapes[0][1] + _GAP + shapes[1][1])
    canvas = ImageSize(
        _MARGIN + inner[0] + _CAPTION_HEIGHT, max(inner[1] + 2 * _MARGIN, _MIN_WIDTH)
    )
    left, top = (canvas.width - inner[1]) // 2, _MARGIN
    placed0 = _Placed(size0, left, top, shapes[0][1], shapes[0][0])
    if is_stacked:
        top += shapes[0][0] + _GAP
    else:
        left += shapes[0][1] + _GAP
    return placed0, _Placed(size1, left, top, shapes[1][1], shapes[1][0]), canvas


def _side(length: float) -> int:
    return max(1, round(float(length)))


def _paste(canvas: RgbArray, image: RgbArray, placed: _Placed) -> None:
    """Lay a resized photograph with slightly rounded corners onto the canvas, in place."""
    is_shrunk = placed.width * placed.height < placed.source.width * placed.source.height
    interpolation = cv2.INTER_AREA if is_shrunk else cv2.INTER_CUBIC
    resized = cv2.resize(image, (placed.width, placed.height), interpolation=interpolation)
    rows = slice(placed.top, placed.top + placed.height)
    columns = slice(placed.left, placed.left + placed.width)
    # Pillow's rounded rectangle is not anti-aliased: draw it large and shrink it.
    times = 4
    radius = times * min(_CORNER_RADIUS, placed.width // 4, placed.height // 4)
    large = Image.new("L", (times * placed.width, times * placed.height))
    corners = (0, 0, large.width - 1, large.height - 1)
    ImageDraw.Draw(large).rounded_rectangle(corners, radius, fill=255)
    mask = np.asarray(large.reduce(times), dtype=np.float32)[..., None] / 255
    blended = mask * resized + (1 - mask) * canvas[rows, columns]
    canvas[rows, columns] = np.rint(blended).astype(np.uint8)


def _lies_in(keypoints: FloatArray, size: ImageSize) -> BoolArray:
    limit = np.array([size.width, size.height]) - 0.5
    return np.asarray(((keypoints >= -0.5) & (keypoints <= limit)).all(axis=1), dtype=np.bool_)


def _choose(
    starts: FloatArray,
    scores: FloatArray,
    is_inlier: BoolArray | None,
    candidates: RowArray,
    size0: ImageSize,
    max_matches: int,
) -> tuple[RowArray, RowArray]:
    """Rows to draw: inliers (all are, without a mask) and outliers, most confident last."""
    flags = np.ones(len(candidates), bool) if is_inlier is None else is_inlier[candidates]
    inliers, outliers = candidates[flags], candidates[~flags]
    num_shown = min(max_matches, len(candidates))
    num_outliers = round(num_shown * len(outliers) / max(1, len(candidates)))
    chosen = []
    for rows, count in ((inliers, num_shown - num_outliers), (outliers, num_outliers)):
        if count == 0:
            chosen.append(rows[:0])
            continue
        kept = top_k_rows(
            torch.from_numpy(starts[rows]),
            torch.from_numpy(scores[rows]),
            count,
            size0,
            # About one match a cell: as even as the matches allow.
            balance=math.ceil(math.sqrt(count)),
        ).numpy()
        rows = rows[kept]
        chosen.append(rows[np.argsort(scores[rows], kind="stable")])
    return chosen[0], chosen[1]


def _position_colours(keypoints: FloatArray) -> RgbArray:
    """(M, 3) colours that change evenly, to the eye, with the position among the keypoints.

    Mostly from left to right the colour goes through the anchors, interpolated in CIELAB; from top
    to bottom it darkens. The whole range is spent on the part of the picture that has keypoints.
    """
    if len(keypoints) == 0:
        return np.zeros((0, 3), np.uint8)
    # Quantiles: a few stray matches must not claim half of the colours.
    low, high = np.quantile(keypoints, _COLOUR_QUANTILES, axis=0)
    across, down = ((keypoints - low) / np.maximum(high - low, 1.0)).clip(0, 1).T
    anchor_rgb = np.array([_COLOUR_ANCHORS], np.float32) / 255
    anchors = np.asarray(cv2.cvtColor(anchor_rgb, cv2.COLOR_RGB2LAB))[0]
    along = (_SHARE_ACROSS * across + (1 - _SHARE_ACROSS) * down) * (len(anchors) - 1)
    places = np.arange(len(anchors))
    lab = np.stack([np.interp(along, places, channel) for channel in anchors.T], axis=-1)
    lab[:, 0] += _LIGHTNESS_SPAN * (0.5 - down)
    rgb = np.asarray(cv2.cvtColor(lab[None].astype(np.float32), cv2.COLOR_LAB2RGB))[0]
    return np.asarray(np.rint(255 * rgb.clip(0, 1)), np.uint8)


def _draw_layer(
    canvas: RgbArray, starts: FloatArray, ends: FloatArray, colours: RgbArray, *, faint: bool
) -> RgbArray:
    """The canvas with semi-transparent lines and, on top of them, dots with dark rims."""
    if len(starts) == 0:
        return canvas
    # Many lines hide the photographs: the more there are, the fainter each.
    line_opacity = 0.30 if faint else float(np.clip(8 / math.sqrt(len(starts)), 0.5, 0.85))
    dot_opacity, radius = (0.5, 2.2) if faint else (1.0, 3.0)
    one = 1 << _SUBPIXEL_BITS
    fixed_starts = np.rint(starts * one).astype(int).tolist()
    fixed_ends = np.rint(ends * one).astype(int).tolist()
    fills = colours.tolist()

    lines = canvas.copy()
    for start, end, fill in zip(fixed_starts, fixed_ends, fills, strict=True):
        cv2.line(lines, start, end, fill, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
    canvas = _blend(lines, line_opacity, canvas)

    dots = canvas.copy()
    for places in (fixed_starts, fixed_ends):
        for place, fill in zip(places, fills, strict=True):
            for extent, colour in ((radius + 1.2, _RIM), (radius, fill)):
                cv2.circle(
                    dots, place, round(extent * one), colour, -1, cv2.LINE_AA, _SUBPIXEL_BITS
                )
    return _blend(dots, dot_opacity, canvas)


def _blend(over: RgbArray, opacity: float, under: RgbArray) -> RgbArray:
    return np.asarray(cv2.addWeighted(over, opacity, under, 1 - opacity, 0), dtype=np.uint8)


def _summary(num_matches: int, is_inlier: BoolArray | None) -> str:
    if num_matches == 0:
        return "no matches"
    text = f"{num_matches} match{'es' if num_matches > 1 else ''}"
    if is_inlier is None:
        return text
    num_inliers = int(np.count_nonzero(is_inlier))
    return f"{text} \N{MIDDLE DOT} {num_inliers} inlier{'s' if num_inliers != 1 else ''}"


def _with_caption(canvas: RgbArray, text: str, aside: str) -> RgbArray:
    """One line in the free strip at the bottom: the text, and an aside in grey if it fits."""
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    text = " ".join(text.split())
    room = picture.width - 2 * _MARGIN
    font_size = _FONT_SIZE
    while pen.textlength(text, _font(font_size)) > room and font_size > _SMALLEST_FONT_SIZE:
        font_size -= 1
    font = _font(font_size)
    if pen.textlength(text, font) > room:
        text = _cut(text, lambda part: pen.textlength(part, font) <= room)
    baseline = picture.height - _CAPTION_HEIGHT // 2
    pen.text((_MARGIN, baseline), text, _TEXT, font, anchor="lm")
    if pen.textlength(f"{text}    {aside}", font) <= room:
        pen.text((picture.width - _MARGIN, baseline), aside, _QUIET_TEXT, font, anchor="rm")
    return np.array(picture)


def _cut(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of a text that fits with an ellipsis behind it."""
    ending = "\N{HORIZONTAL ELLIPSIS}"
    length = bisect.bisect_left(
        range(1, len(text) + 1), True, key=lambda kept: not fits(text[:kept].rstrip() + ending)
    )
    return text[:length].rstrip() + ending


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)
