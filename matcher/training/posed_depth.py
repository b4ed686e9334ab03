"""Pairs of posed views with depth: rendered scenes, and views of a manifest."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from matcher.errors import DatasetError
from matcher.synthetic.pairs import overlap_matrix
from matcher.training.manifest import PosedView, read_views
from matcher.training.motion import (
    ANY_MOTION,
    MAX_ATTEMPTS,
    Motion,
    focal_of,
    rotation_degrees,
)
from matcher.training.photo_files import read_photo
from matcher.training.posed_views import (
    CENTRED_SHARE,
    CameraView,
    crop_view,
    sample_from_views,
    smallest_windows,
    turn_view,
)
from matcher.training.samples import TrainingSample

__all__ = ["DepthGroup", "PosedDepth", "ScenePool", "overlap_table", "posed_groups", "read_depth"]

ByteImage = npt.NDArray[np.uint8]
# Photographs are seldom cropped off their axis; some are.


@dataclass(frozen=True, slots=True, eq=False)
class DepthGroup:
    """Views of one scene in one world frame.

    Attributes:
        images: (H, W, 3) uint8 each.
        depths: (H, W) float32 z-depth each, 0 where unknown.
        intrinsics: (V, 3, 3).
        cam_from_world: (V, 4, 4).
        overlaps: (V, V) share of view i seen in view j.
        is_metric: whether depth is in metres.
    """

    images: Sequence[ByteImage]
    depths: Sequence[npt.NDArray[np.float32]]
    intrinsics: npt.NDArray[np.float64]
    cam_from_world: npt.NDArray[np.float64]
    overlaps: npt.NDArray[np.float32]
    is_metric: bool


def overlap_table(
    depths: Sequence[npt.NDArray[np.float32]],
    intrinsics: npt.NDArray[np.float64],
    cam_from_world: npt.NDArray[np.float64],
) -> npt.NDArray[np.float32]:
    """Overlap of all views, from thinned depth maps (padded with unknown depth to one size)."""
    step = 8 if len(depths) <= 16 else 16
    parts = [depth[step // 2 :: step, step // 2 :: step] for depth in depths]
    rows, columns = np.max([part.shape for part in parts], axis=0)
    thin = np.zeros((len(parts), rows, columns), dtype=np.float32)
    for row, part in zip(thin, parts, strict=True):
        row[: part.shape[0], : part.shape[1]] = part
    k = intrinsics.copy()
    k[:, :2, 2] -= step // 2
    k[:, :2] /= step
    table = overlap_matrix(
        torch.from_numpy(thin)[None],
        torch.from_numpy(k)[None],
        torch.from_numpy(cam_from_world)[None],
        tolerance=0.05,
    )
    result: npt.NDArray[np.float32] = table[0].float().numpy()
    return result


def _choose_pair(
    random: np.random.Generator, group: DepthGroup, motion: Motion
) -> tuple[int, int] | None:
    """Two views whose overlap is about flat in the range of interest."""
    low, high = motion.overlap
    shared = np.minimum(group.overlaps, group.overlaps.T)
    allowed = (shared >= low) & (shared <= high)
    allowed &= motion.allows_rotation(rotation_degrees(group.cam_from_world))
    # A crop only lengthens a lens: a view that is too long already need not be tried.
    lenses = zip(group.intrinsics, group.images, strict=True)
    short = np.array([focal_of(k, image.shape[:2]) <= motion.focal[1] for k, image in lenses])
    allowed &= short & short[:, None]
    np.fill_diagonal(allowed, False)
    candidates = np.argwhere(allowed)
    if not len(candidates):
        return None
    target = random.uniform(low, high)
    distance = np.abs(shared[candidates[:, 0], candidates[:, 1]] - target)
    nearest = np.argsort(distance + random.uniform(0, 0.05, len(distance)))[
        : 1 + len(distance) // 10
    ]
    first, second = candidates[random.choice(nearest)]
    return int(first), int(second)


class PosedDepth:
    """Pairs of posed views with depth; subclasses say where a group comes from."""

    source = "views"

    def __init__(self, groups: Sequence[DepthGroup]) -> None:
        self.groups = groups

    def draw_group(self, random: np.random.Generator) -> DepthGroup:
        """A place with all its views."""
        return self.groups[int(random.integers(len(self.groups)))]

    def draw(
        self,
        random: np.random.Generator,
        shape: tuple[int, int],
        num_matches: int,
        motion: Motion = ANY_MOTION,
    ) -> TrainingSample:
        """One pair; overlap is about flat, some pairs are turned by quarter turns."""
        turns_one = motion.rotation_degrees[1] >= 90
        for _ in range(MAX_ATTEMPTS):
            group = self.draw_group(random)
            pair = _choose_pair(random, group, motion)
            if pair is None:
                continue
            common = int(random.integers(4)) if random.random() < 0.1 else 0
            views = []
            smallest = smallest_windows(random, usual=0.9, close_up=0.4)
            centred = random.random() < CENTRED_SHARE
            for index, least in zip(pair, smallest, strict=True):
                extra = int(random.integers(4)) if turns_one and random.random() < 0.05 else 0
                view = CameraView(
                    group.images[index],
                    group.depths[index],
                    group.intrinsics[index],
                    group.cam_from_world[index],
                )
                turned = turn_view(view, common + extra)
                views.append(crop_view(random, turned, shape, smallest=least, centred=centred))
            if not all(motion.allows_focal(focal_of(view.k, shape)) for view in views):
                continue
            sample = sample_from_views(
                random, views[0], views[1], num_matches, group.is_metric, self.source
            )
            if sample is not None:
                return sample
        raise DatasetError(
            f"{self.source}: no two views with a common part ({motion}) in {MAX_ATTEMPTS} draws"
        )


class ScenePool(PosedDepth):
    """Rendered scenes in ``scene_*.npz`` files; the pool may still be growing."""

    source = "scenes"

    def __init__(self, folders: Sequence[str]) -> None:
        super().__init__(())
        self.folders = tuple(Path(folder) for folder in folders)
        self._files: list[Path] = []
        self._draws = 0
        self._overlap_cache: dict[Path, npt.NDArray[np.float32]] = {}
        self._refresh()

    def _refresh(self) -> None:
        self._files = [path for folder in self.folders for path in folder.glob("scene_*.npz")]
        self._files.sort()
        if not self._files:
            raise DatasetError(
                f"scene_pools: expected scene_*.npz below {', '.join(map(str, self.folders))}"
            )

    def draw_group(self, random: np.random.Generator) -> DepthGroup:
        """A place with all its views."""
        self._draws += 1
        if self._draws % 500 == 0:
            self._refresh()
        path = self._files[int(random.integers(len(self._files)))]
        try:
            # NumPy leaves the file open when it holds no archive: it is closed here.
            with path.open("rb") as file, np.load(file) as data:
                images, depths = data["image"], data["depth"].astype(np.float32)
                intrinsics, poses = data["k"], data["cam_from_world"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = " ".join(str(error).split())
            raise DatasetError(f"scene pool: cannot read {path}: {reason}") from None
        if not all(np.isfinite(values).all() for values in (depths, intrinsics, poses)):
            raise DatasetError(f"scene pool: NaN or infinity in the depth or a camera of {path}")
        overlaps = self._overlap_cache.get(path)
        if overlaps is None:
            overlaps = self._overlap_cache[path] = overlap_table(list(depths), intrinsics, poses)
        return DepthGroup(list(images), list(depths), intrinsics, poses, overlaps, is_metric=True)


def posed_groups(manifests: Sequence[str]) -> list[DepthGroup]:
    """Load view manifests with depth into memory, one group of views each.

    Raises:
        DatasetError: a manifest, picture or depth cannot be read, depth and picture differ in size,
            or no place has two views with depth.
    """
    groups = []
    for manifest in manifests:
        by_group: dict[str, list[int]] = {}
        views = read_views(Path(manifest))
        for index, view in enumerate(views):
            if view.depth is not None:
                by_group.setdefault(view.group, []).append(index)
        for members in by_group.values():
            if len(members) < 2:
                continue
            images = [read_photo(views[index].image) for index in members]
            depths = [_depth_of(views[index]) for index in members]
            for index, image, depth in zip(members, images, depths, strict=True):
                if image.shape[:2] != depth.shape:
                    raise DatasetError(
                        f"depth: expected the size of its picture {image.shape[:2]}, "
                        f"got {depth.shape} in {views[index].depth}"
                    )
            intrinsics = np.stack([views[index].camera.matrix for index in members])
            poses = np.stack([views[index].cam_from_world.matrix for index in members])
            groups.append(
                DepthGroup(
                    images,
                    depths,
                    intrinsics,
                    poses,
                    overlap_table(depths, intrinsics, poses),
                    True,
                )
            )
    if not groups:
        raise DatasetError(
            f"view_manifests: expected a place with two views with depth in {', '.join(manifests)}"
        )
    return groups


def read_depth(path: Path, scale: float) -> npt.NDArray[np.float32]:
    """(H, W) float32 depth along the optical axis, metres, 0 where unknown.

    Raises:
        DatasetError: no picture of one channel, or numbers that no depth can be.
    """
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 2:
        raise DatasetError(f"depth: cannot read {path} as a one-channel picture")
    depth: npt.NDArray[np.float32] = np.asarray(raw, dtype=np.float32) / np.float32(scale)
    if not np.isfinite(depth).all() or depth.min() < 0:
        raise DatasetError(f"depth: expected finite numbers >= 0 (0: unknown) in {path}")
    return depth


def _depth_of(view: PosedView) -> npt.NDArray[np.float32]:
    assert view.depth is not None
    assert view.depth_scale is not None
    return read_depth(view.depth, view.depth_scale)
