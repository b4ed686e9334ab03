"""A picture of what the losses see of a batch."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import numpy.typing as npt

from matcher.training.samples import TrainingBatch
from matcher.training.sheets import RgbArray, coloured_depth, picture_rows, to_bytes

__all__ = ["draw_batch"]

_MAX_DOTS = 60
_CAPTIONS = ("view 0", "view 1", "points 0: distance", "points 1: distance", "valid 0", "valid 1")


def draw_batch(batch: TrainingBatch) -> RgbArray:
    """(H, W, 3) uint8, a row a pair: both crops with some correspondences, pointmaps, masks.

    Dots of one colour show the same scene point. Distances are those from camera 0, in which both
    pointmaps lie; dark grey is unknown. Pairs without depth have empty pointmaps.
    """
    pairs, targets = batch.correspondences, batch.targets
    rows = []
    for row in range(len(batch.sources)):
        chosen = np.flatnonzero(pairs.valid[row].numpy())
        chosen = chosen[:: max(1, -(-len(chosen) // _MAX_DOTS))]
        pixels0 = pairs.pixels0[row].numpy()[chosen]
        pixels1 = pairs.pixels1[row].numpy()[chosen]
        width, height = batch.pixels0.shape[3], batch.pixels0.shape[2]
        colours = [_colour(x / width, y / height) for x, y in pixels0]
        valid = [mask[row].numpy() for mask in (targets.valid0, targets.valid1)]
        distances = [
            np.linalg.norm(points[row].numpy(), axis=2)
            for points in (targets.points0, targets.points1)
        ]
        rows.append(
            [
                _with_dots(to_bytes(batch.pixels0[row]), pixels0, colours),
                _with_dots(to_bytes(batch.pixels1[row]), pixels1, colours),
                *(coloured_depth(*pair) for pair in zip(distances, valid, strict=True)),
                *(_as_picture(mask) for mask in valid),
            ]
        )
    return picture_rows(rows, _CAPTIONS)


def _colour(x: float, y: float) -> tuple[int, int, int]:
    """Hue from left to right, lightness from top to bottom: neighbours are told apart."""
    red, green, blue = colorsys.hsv_to_rgb(0.85 * x, 0.9, 1 - 0.45 * y)
    return round(255 * red), round(255 * green), round(255 * blue)


def _with_dots(
    picture: RgbArray, pixels: npt.NDArray[np.int64], colours: list[tuple[int, int, int]]
) -> RgbArray:
    drawn = np.ascontiguousarray(picture)
    for (x, y), colour in zip(pixels.tolist(), colours, strict=True):
        cv2.circle(drawn, (x, y), 3, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(drawn, (x, y), 2, colour, -1, cv2.LINE_AA)
    return drawn


def _as_picture(mask: npt.NDArray[np.bool_]) -> RgbArray:
    picture: RgbArray = np.repeat((mask * np.uint8(255))[..., None], 3, axis=2)
    return picture
