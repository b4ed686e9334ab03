"""Quarter turns: a photograph turned, and what was found in it laid back upright.

Local features forgive a turn about the optical axis of some 45 degrees. Two photographs of a place
differ by more when one lies on its side, and when something is seen from opposite sides: what
lies on the ground is then upside down.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from matcher.pointmaps import Pointmaps
from matcher.structures import FloatArray, ImageSize, Matches

__all__ = [
    "QUARTER_TURNS",
    "rotation_about_axis",
    "turn",
    "upright_matches",
    "upright_pointmaps",
]

PictureT = TypeVar("PictureT", npt.NDArray[np.uint8], npt.NDArray[np.bool_])

QUARTER_TURNS = (0, 1, 2, 3)
"""Counter-clockwise, as a viewer sees them."""


def rotation_about_axis(quarter_turns: int) -> FloatArray:
    """(3, 3) rotation of a camera whose picture is turned counter-clockwise by quarter turns."""
    quarter = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return np.linalg.matrix_power(quarter, quarter_turns % 4)


def turn(picture: PictureT, quarter_turns: int) -> PictureT:
    """A picture or mask (H, W, ...), turned."""
    return np.ascontiguousarray(np.rot90(picture, quarter_turns))


def upright_matches(matches: Matches, size1: ImageSize, quarter_turns: int) -> Matches:
    """Matches with a turned photograph 1, in the pixels of the upright one.

    Args:
        matches: with photograph 1 turned by ``quarter_turns``.
        size1: of photograph 1, upright.
        quarter_turns: counter-clockwise.
    """
    middle = np.array([size1.width - 1, size1.height - 1]) / 2
    turned_middle = middle[::-1] if quarter_turns % 2 else middle
    offsets = matches.keypoints1.double().numpy() - turned_middle
    upright = offsets @ _upright_from_turned(quarter_turns).T + middle
    return Matches(
        matches.keypoints0, torch.from_numpy(upright.astype(np.float32)), matches.confidence
    )


def upright_pointmaps(
    maps: Pointmaps, original1_from_network: FloatArray, quarter_turns: int
) -> Pointmaps:
    """Pointmaps with a turned photograph 1, for the upright one.

    Args:
        maps: of photograph 0 and the turned photograph 1.
        original1_from_network: (3, 3) of the upright view.
        quarter_turns: counter-clockwise.
    """

    def back(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(np.rot90(values, -quarter_turns))

    own = maps.points1_in_camera1
    if own is not None:
        own = back(own).copy()
        own[..., :2] = own[..., :2] @ _upright_from_turned(quarter_turns).T
    return dataclasses.replace(
        maps,
        points1=back(maps.points1),
        confidence1=back(maps.confidence1),
        original1_from_network=original1_from_network,
        points1_in_camera1=own,
    )


def _upright_from_turned(quarter_turns: int) -> FloatArray:
    """(2, 2) rotation of directions x, y (y down)."""
    return rotation_about_axis(quarter_turns)[:2, :2].T
