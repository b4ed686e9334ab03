"""The pointmaps of all pairs as one stack of sampled pixels.

A *frame* is one run of the network in one order: two pointmaps in the frame of the first camera.
The other order of a pair is a frame of its own, of which the own pointmap is kept. A *view* is one
pointmap of one photograph in one frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.geometry.focal import estimate_focal
from matcher.geometry.pixels import to_original, transform_keypoints
from matcher.structures import FloatArray, ImageSize

__all__ = ["Frame", "FrameView", "PixelGrid", "ViewStack", "stack_views"]


@dataclass(frozen=True, slots=True, eq=False)
class FrameView:
    """A pointmap: (h, w, 3) points of photograph ``image`` and their (h, w) confidence."""

    image: int
    points: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The camera frame of ``own.image``, with its own pointmap and perhaps another's."""

    own: FrameView
    other: FrameView | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PixelGrid:
    """The pointmap pixels of one photograph, and which of them are sampled.

    Attributes:
        name: of the photograph.
        size: of the photograph.
        shape: (h, w) of its pointmaps.
        original_from_network: (3, 3), pixels of the pointmap to pixels of the photograph.
        stride: every so many-th row and column is sampled.
    """

    name: str
    size: ImageSize
    shape: tuple[int, int]
    original_from_network: FloatArray
    stride: int = 1

    @property
    def lattice(self) -> tuple[slice, slice]:
        """The sampled rows and columns, with equal margins."""
        rows, columns = (
            slice((length - 1) % self.stride // 2, None, self.stride) for length in self.shape
        )
        return rows, columns

    @property
    def lattice_shape(self) -> tuple[int, int]:
        """How many rows and columns are sampled."""
        rows, columns = self.lattice
        return len(range(self.shape[0])[rows]), len(range(self.shape[1])[columns])

    @property
    def original_per_network(self) -> float:
        """Original pixels that a pixel of the pointmap is wide."""
        scale = self.original_from_network
        return float(np.sqrt(scale[0, 0] * scale[1, 1]))

    def sampled(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(P, ...) sampled pixels of a map (h, w, ...), row by row."""
        rows, columns = self.lattice
        part = values[rows, columns]
        return part.reshape(-1, *values.shape[2:])

    def pixels(self, *, sampled: bool = True) -> FloatArray:
        """(P, 2) pixels of the photograph under the sampled pixels, or under all, row by row."""
        y, x = np.mgrid[: self.shape[0], : self.shape[1]].astype(np.float64)
        grid = np.stack([x, y], axis=-1)
        if sampled:
            rows, columns = self.lattice
            grid = grid[rows, columns]
        return to_original(grid.reshape(-1, 2), self.original_from_network)

    def estimate_focal(
        self, points: npt.NDArray[np.float32], center: npt.ArrayLike
    ) -> float | None:
        """Focal, original pixels, of (P, 3) sampled points of a pointmap in its own camera's frame.

        Args:
            points: row by row, (0, 0, 0) where there is none.
            center: principal point (x, y), original pixels.
        """
        height, width = self.lattice_shape
        rows, columns = self.lattice
        moved = transform_keypoints(
            np.linalg.inv(self.original_from_network), np.atleast_2d(center)
        )
        x, y = (moved[0] - [columns.start, rows.start]) / self.stride
        focal = estimate_focal(points.reshape(height, width, 3), (x, y))
        return None if focal is None else focal * self.stride * self.original_per_network

    def thinned(self, max_points: int | None) -> PixelGrid:
        """The same grid, of which at most ``max_points`` pixels are sampled."""
        stride = 1
        grid = PixelGrid(self.name, self.size, self.shape, self.original_from_network, stride)
        while max_points is not None and np.prod(grid.lattice_shape) > max_points:
            stride += 1
            grid = PixelGrid(self.name, self.size, self.shape, self.original_from_network, stride)
        return grid


@dataclass(frozen=True, slots=True, eq=False)
class ViewStack:
    """V views of I photographs in F frames, P sampled pixels each; shorter ones are padded.

    Attributes:
        grids: of each photograph.
        frames: where the views came from, at full size.
        points: (V, P, 3) float32, in the view's frame; 0 where there is none.
        confidence: (V, P) float32; 0 where there is no point.
        image: (V,) int64, the photograph of each view.
        frame: (V,) int64, the frame of each view.
        is_own: (V,) bool, whether the frame is that of the photograph itself.
        pixels: (I, P, 2) float64, original pixels; 0 in the padding.
        is_pixel: (I, P) bool, false in the padding.
    """

    grids: tuple[PixelGrid, ...]
    frames: tuple[Frame, ...]
    points: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    image: npt.NDArray[np.int64]
    frame: npt.NDArray[np.int64]
    is_own: npt.NDArray[np.bool_]
    pixels: FloatArray
    is_pixel: npt.NDArray[np.bool_]

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """(V, P) float32, log of the confidence, as the objective weighs each point; >= 0."""
        return np.log(np.maximum(self.confidence, 1.0))

    def own_view(self, frame: int) -> int:
        """Which view is the own one of a frame."""
        return int(np.flatnonzero((self.frame == frame) & self.is_own)[0])

    def other_view(self, frame: int) -> int | None:
        """Which view is the other photograph's in a frame, if it has one."""
        rows = np.flatnonzero((self.frame == frame) & ~self.is_own)
        return int(rows[0]) if len(rows) else None

    def views_of(self, image: int) -> npt.NDArray[np.int64]:
        """The views of a photograph."""
        return np.flatnonzero(self.image == image)


def stack_views(
    grids: Sequence[PixelGrid], frames: Sequence[Frame], max_points: int | None
) -> ViewStack:
    """Sample every view at the same pixels of its photograph.

    Args:
        grids: of each photograph, unthinned.
        frames: of all pairs; at least one.
        max_points: at most so many pixels of a photograph; ``None``: all.

    Raises:
        InputError: a pointmap of another shape than its photograph's grid.
    """
    thinned = tuple(grid.thinned(max_points) for grid in grids)
    views = [
        (number, view, view is frame.own)
        for number, frame in enumerate(frames)
        for view in (frame.own, frame.other)
        if view is not None
    ]
    counts = [int(np.prod(grid.lattice_shape)) for grid in thinned]
    longest = max(counts)
    points = np.zeros((len(views), longest, 3), np.float32)
    confidence = np.zeros((len(views), longest), np.float32)
    for row, (_, view, _) in enumerate(views):
        grid = thinned[view.image]
        if view.confidence.shape != grid.shape or view.points.shape != (*grid.shape, 3):
            raise InputError(
                "records", f"pointmaps of {grid.name} of shape {grid.shape}", f"{view.points.shape}"
            )
        count = counts[view.image]
        points[row, :count] = grid.sampled(view.points)
        confidence[row, :count] = grid.sampled(view.confidence)
    usable = np.isfinite(points).all(axis=2) & np.isfinite(confidence)
    points[~usable], confidence[~usable] = 0.0, 0.0
    pixels = np.zeros((len(grids), longest, 2))
    for image, grid in enumerate(thinned):
        pixels[image, : counts[image]] = grid.pixels()
    return ViewStack(
        thinned,
        tuple(frames),
        points,
        confidence,
        np.array([view.image for _, view, _ in views], np.int64),
        np.array([number for number, _, _ in views], np.int64),
        np.array([is_own for _, _, is_own in views], np.bool_),
        pixels,
        np.arange(longest) < np.array(counts)[:, None],
    )
