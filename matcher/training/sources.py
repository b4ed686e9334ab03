"""Where training pairs come from: posed depth, single photographs, sparse matches.

Every source draws one pair of a given (height, width) from a random generator.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from matcher.errors import DatasetError
from matcher.synthetic.pairs import correspondences, overlap_matrix, points_in_camera0
from matcher.training.augment import photometric, resize_image, rotation_about_axis
from matcher.training.manifest import read_correspondences, read_pairs, read_views
from matcher.training.samples import TrainingSample, select_matches

__all__ = [
    "DepthGroup",
    "HomographyViews",
    "MatchedPhotos",
    "PairSource",
    "PosedDepth",
    "ScenePool",
    "SinglePhotos",
    "find_photos",
    "homography_pair",
    "homography_views",
    "posed_groups",
]

ByteImage = npt.NDArray[np.uint8]
_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_MIN_MATCHES = 32
_MAX_ATTEMPTS = 20
_OVERLAP_RANGE = (0.05, 1.0)
_CLOSE_UP_SHARE = 0.4


class PairSource(Protocol):
    """Something that draws training pairs."""

    def draw(
        self, random: np.random.Generator, shape: tuple[int, int], num_matches: int
    ) -> TrainingSample:
        """One pair of (height, width) images."""
        ...


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


@dataclass(frozen=True, slots=True, eq=False)
class _CameraView:
    """One cropped and resized view with its camera."""

    image: ByteImage
    depth: npt.NDArray[np.float32]
    k: npt.NDArray[np.float64]
    cam_from_world: npt.NDArray[np.float64]


def find_photos(folders: Sequence[str]) -> list[Path]:
    """Every photograph below ``folders``, sorted.

    Raises:
        DatasetError: a folder is missing or holds none.
    """
    found: list[Path] = []
    for folder in folders:
        files = [path for path in Path(folder).rglob("*") if path.suffix.lower() in _PHOTO_SUFFIXES]
        if not files:
            raise DatasetError(f"photos: expected photographs below {folder}, found none")
        found += sorted(files)
    return found


def read_photo(path: Path) -> ByteImage:
    """(H, W, 3) uint8 RGB; raises ``DatasetError`` for a file that is no picture."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"photo: cannot read {path}")
    return np.asarray(image[..., ::-1], dtype=np.uint8)


def _overlaps(
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
    random: np.random.Generator, overlaps: npt.NDArray[np.float32]
) -> tuple[int, int] | None:
    """Two views whose overlap is about flat in the range of interest."""
    low, high = _OVERLAP_RANGE
    shared = np.minimum(overlaps, overlaps.T).copy()
    np.fill_diagonal(shared, -1)
    candidates = np.argwhere(shared >= low)
    if not len(candidates):
        return None
    target = random.uniform(low, high)
    distance = np.abs(shared[candidates[:, 0], candidates[:, 1]] - target)
    nearest = np.argsort(distance + random.uniform(0, 0.05, len(distance)))[
        : 1 + len(distance) // 10
    ]
    first, second = candidates[random.choice(nearest)]
    return int(first), int(second)


def _turn(view: _CameraView, quarter_turns: int) -> _CameraView:
    if quarter_turns % 4 == 0:
        return view
    k, width = view.k, view.image.shape[1]
    image, depth = view.image, view.depth
    for _ in range(quarter_turns % 4):
        width = image.shape[1]
        k = np.array(
            [[k[1, 1], 0, k[1, 2]], [0, k[0, 0], width - 1 - k[0, 2]], [0, 0, 1]], dtype=np.float64
        )
        image, depth = np.rot90(image), np.rot90(depth)
    turn = np.eye(4)
    turn[:3, :3] = rotation_about_axis(quarter_turns)
    return _CameraView(
        np.ascontiguousarray(image), np.ascontiguousarray(depth), k, turn @ view.cam_from_world
    )


def _smallest_windows(
    random: np.random.Generator, usual: float, close_up: float
) -> tuple[float, float]:
    """The least share of either view that its crop may be: some pairs have a close-up.

    Photographs of one place differ in scale far more often than neighbouring views do.
    """
    if random.random() >= _CLOSE_UP_SHARE:
        return usual, usual
    return (usual, close_up) if random.random() < 0.5 else (close_up, usual)


def _crop(
    random: np.random.Generator, view: _CameraView, shape: tuple[int, int], smallest: float
) -> _CameraView:
    """A random window with the aspect of ``shape``, resized to it; the camera follows."""
    height, width = view.image.shape[:2]
    largest = min(height / shape[0], width / shape[1])
    scale = largest * random.uniform(smallest, 1.0)
    if abs(scale - 1) < 0.12 and largest >= 1:
        scale = 1.0  # no resampling: depth and colours stay exact
    window_h = min(height, max(1, round(shape[0] * scale)))
    window_w = min(width, max(1, round(shape[1] * scale)))
    top = int(random.integers(0, height - window_h + 1))
    left = int(random.integers(0, width - window_w + 1))
    rows, columns = slice(top, top + window_h), slice(left, left + window_w)
    k = view.k.copy()
    k[0, 2] -= left
    k[1, 2] -= top
    ratio = np.array([shape[1] / window_w, shape[0] / window_h])
    k[:2] *= ratio[:, None]
    k[:2, 2] += 0.5 * ratio - 0.5
    image, depth = view.image[rows, columns], view.depth[rows, columns]
    if (window_h, window_w) != shape:
        image = resize_image(np.ascontiguousarray(image), shape)
        depth = np.asarray(
            cv2.resize(
                np.ascontiguousarray(depth),
                (shape[1], shape[0]),
                interpolation=cv2.INTER_NEAREST_EXACT,
            )
        )
    return _CameraView(image, depth, k, view.cam_from_world)


def _sample_from_views(
    random: np.random.Generator,
    view0: _CameraView,
    view1: _CameraView,
    num_matches: int,
    is_metric: bool,
    source: str,
) -> TrainingSample | None:
    """Exact truth of two posed views; ``None`` where they share too little."""
    pose = view1.cam_from_world @ np.linalg.inv(view0.cam_from_world)
    depth0, depth1 = torch.from_numpy(view0.depth), torch.from_numpy(view1.depth)
    k0, k1, cam1_from_cam0 = (torch.from_numpy(m) for m in (view0.k, view1.k, pose))
    found = correspondences(depth0, k0, depth1, k1, cam1_from_cam0, tolerance=0.015)
    rows, columns = np.nonzero(found.valid.numpy())
    if len(rows) < _MIN_MATCHES:
        return None
    keypoints0 = np.stack([columns, rows], axis=1).astype(np.float64)
    keypoints1 = found.target.numpy()[rows, columns].astype(np.float64)
    matches = select_matches(
        random, keypoints0, keypoints1, view0.image.shape[:2], num_matches, exact=True
    )
    if matches.valid.sum() < _MIN_MATCHES // 2:
        return None
    points0, points1 = points_in_camera0(depth0, k0, depth1, k1, cam1_from_cam0)
    return TrainingSample(
        photometric(random, view0.image),
        photometric(random, view1.image),
        matches,
        points0.float().numpy(),
        points1.float().numpy(),
        view0.depth > 0,
        view1.depth > 0,
        is_metric,
        source,
    )


class PosedDepth:
    """Pairs of posed views with depth; subclasses say where a group comes from."""

    source = "views"

    def __init__(self, groups: Sequence[DepthGroup]) -> None:
        self.groups = groups

    def draw_group(self, random: np.random.Generator) -> DepthGroup:
        """A place with all its views."""
        return self.groups[int(random.integers(len(self.groups)))]

    def draw(
        self, random: np.random.Generator, shape: tuple[int, int], num_matches: int
    ) -> TrainingSample:
        """One pair; overlap is about flat, some pairs are turned by quarter turns."""
        for _ in range(_MAX_ATTEMPTS):
            group = self.draw_group(random)
            pair = _choose_pair(random, group.overlaps)
            if pair is None:
                continue
            common = int(random.integers(4)) if random.random() < 0.1 else 0
            views = []
            smallest = _smallest_windows(random, usual=0.7, close_up=0.4)
            for index, least in zip(pair, smallest, strict=True):
                extra = int(random.integers(4)) if random.random() < 0.05 else 0
                view = _CameraView(
                    group.images[index],
                    group.depths[index],
                    group.intrinsics[index],
                    group.cam_from_world[index],
                )
                views.append(_crop(random, _turn(view, common + extra), shape, smallest=least))
            sample = _sample_from_views(
                random, views[0], views[1], num_matches, group.is_metric, self.source
            )
            if sample is not None:
                return sample
        raise DatasetError(
            f"{self.source}: no two views with a common part in {_MAX_ATTEMPTS} draws"
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
        overlaps = self._overlap_cache.get(path)
        if overlaps is None:
            overlaps = self._overlap_cache[path] = _overlaps(list(depths), intrinsics, poses)
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
            depths = [_read_depth(views[i].depth, views[i].depth_scale) for i in members]
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
                    images, depths, intrinsics, poses, _overlaps(depths, intrinsics, poses), True
                )
            )
    if not groups:
        raise DatasetError(
            f"view_manifests: expected a place with two views with depth in {', '.join(manifests)}"
        )
    return groups


def _read_depth(path: Path | None, scale: float | None) -> npt.NDArray[np.float32]:
    assert path is not None
    assert scale is not None
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 2:
        raise DatasetError(f"depth: cannot read {path} as a one-channel picture")
    return np.asarray(raw, dtype=np.float32) / scale


class SinglePhotos:
    """Two homography views of one photograph: cheap, with real image statistics."""

    def __init__(self, photos: Sequence[Path]) -> None:
        self.photos = list(photos)

    def draw(
        self, random: np.random.Generator, shape: tuple[int, int], num_matches: int
    ) -> TrainingSample:
        """One pair with scale changes up to about 3, turns, and perspective."""
        for _ in range(_MAX_ATTEMPTS):
            photo = read_photo(self.photos[int(random.integers(len(self.photos)))])
            sample = homography_pair(random, photo, shape, num_matches)
            if sample is not None:
                return sample
        raise DatasetError(f"photos: no usable homography pair in {_MAX_ATTEMPTS} draws")


@dataclass(frozen=True, slots=True, eq=False)
class HomographyViews:
    """Two warps of one photograph.

    Attributes:
        image0, image1: (H, W, 3) uint8.
        view1_from0: (3, 3), pixels of view 0 to pixels of view 1.
        photo_from0: (3, 3), pixels of view 0 to pixels of the photograph.
    """

    image0: ByteImage
    image1: ByteImage
    view1_from0: npt.NDArray[np.float64]
    photo_from0: npt.NDArray[np.float64]


def homography_views(
    random: np.random.Generator, photo: ByteImage, shape: tuple[int, int]
) -> HomographyViews:
    """Two warps of ``photo`` to (height, width) ``shape``, light and colour changed in each."""
    height, width = shape
    fit = min(photo.shape[0] / height, photo.shape[1] / width)
    scale0 = fit * random.uniform(0.45, 0.95)
    scale1 = np.clip(scale0 * 2 ** random.normal(0, 0.6), fit * 0.25, fit * 1.1)
    wide = random.random() < 0.25
    angle = random.uniform(-np.pi, np.pi) if wide else random.normal(0, 0.25)
    centre0 = np.array(photo.shape[1::-1]) / 2
    slack0 = np.maximum(centre0 - scale0 * np.array([width, height]) / 2, 0)
    centre0 = centre0 + random.uniform(-1, 1, 2) * slack0
    centre1 = centre0 + random.uniform(-0.35, 0.35, 2) * min(scale0, scale1) * np.array(
        [width, height]
    )
    photo_from0 = _random_warp(random, shape, centre0, scale0, random.normal(0, 0.1), 0.08)
    photo_from1 = _random_warp(random, shape, centre1, float(scale1), angle, 0.2)
    return HomographyViews(
        photometric(random, _warp_photo(photo, photo_from0, shape)),
        photometric(random, _warp_photo(photo, photo_from1, shape)),
        np.linalg.inv(photo_from1) @ photo_from0,
        photo_from0,
    )


def homography_pair(
    random: np.random.Generator, photo: ByteImage, shape: tuple[int, int], num_matches: int
) -> TrainingSample | None:
    """A pair of ``homography_views`` with its matches, or ``None`` if they share too little."""
    height, width = shape
    views = homography_views(random, photo, shape)
    keypoints0 = random.integers(0, [width, height], (8 * num_matches, 2)).astype(np.float64)
    keypoints1 = _warp(views.view1_from0, keypoints0)
    on_photo = _warp(views.photo_from0, keypoints0)
    limit = np.array(photo.shape[1::-1]) - 1
    inside = ((on_photo >= 0) & (on_photo <= limit)).all(axis=1)
    inside &= ((keypoints1 >= 0) & (keypoints1 <= [width - 1, height - 1])).all(axis=1)
    if inside.sum() < num_matches // 4:
        return None
    return TrainingSample(
        views.image0,
        views.image1,
        select_matches(
            random, keypoints0[inside], keypoints1[inside], shape, num_matches, exact=True
        ),
        source="photos",
    )


def _random_warp(
    random: np.random.Generator,
    shape: tuple[int, int],
    centre: npt.NDArray[np.float64],
    scale: float,
    angle: float,
    perspective: float,
) -> npt.NDArray[np.float64]:
    """photo_from_view (3, 3): a similarity about ``centre`` with jittered corners."""
    half = np.array([shape[1] - 1, shape[0] - 1]) / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    jitter = random.uniform(-perspective, perspective, (4, 2)) * half * 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = (corners + jitter) @ turn.T * scale + centre
    matrix = cv2.getPerspectiveTransform(
        (corners + half).astype(np.float32), target.astype(np.float32)
    )
    return np.asarray(matrix, dtype=np.float64)


def _warp(
    matrix: npt.NDArray[np.float64], points: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return np.asarray(cv2.perspectiveTransform(points[None], matrix)[0], dtype=np.float64)


def _warp_photo(
    photo: ByteImage, photo_from_view: npt.NDArray[np.float64], shape: tuple[int, int]
) -> ByteImage:
    """Resample the photo, shrunk first where the warp would skip pixels (no aliasing)."""
    centre = np.array([[shape[1] / 2, shape[0] / 2]])
    steps = _warp(photo_from_view, centre + np.eye(2)) - _warp(photo_from_view, centre)
    shrink = max(1.0, float(np.abs(steps).max(axis=1).min()))
    if shrink > 1.3:
        size = (max(1, round(photo.shape[0] / shrink)), max(1, round(photo.shape[1] / shrink)))
        ratio = np.array([size[1] / photo.shape[1], size[0] / photo.shape[0]])
        small_from_photo = np.array(
            [[ratio[0], 0, 0.5 * ratio[0] - 0.5], [0, ratio[1], 0.5 * ratio[1] - 0.5], [0, 0, 1]]
        )
        photo, photo_from_view = resize_image(photo, size), small_from_photo @ photo_from_view
    warped = cv2.warpPerspective(
        photo,
        photo_from_view,
        (shape[1], shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(warped, dtype=np.uint8)


class MatchedPhotos:
    """Real pairs with sparse matches, for instance from structure from motion."""

    def __init__(self, manifests: Sequence[str]) -> None:
        self.pairs = [pair for manifest in manifests for pair in read_pairs(Path(manifest))]
        if not self.pairs:
            raise DatasetError(f"pair_manifests: expected pairs in {', '.join(manifests)}")

    def draw(
        self, random: np.random.Generator, shape: tuple[int, int], num_matches: int
    ) -> TrainingSample:
        """One pair, cropped around a match."""
        for _ in range(_MAX_ATTEMPTS):
            pair = self.pairs[int(random.integers(len(self.pairs)))]
            ends = [end.astype(np.float64) for end in read_correspondences(pair.correspondences)]
            if len(ends[0]) < _MIN_MATCHES:
                continue
            images = [read_photo(pair.image0), read_photo(pair.image1)]
            order = (0, 1) if random.random() < 0.5 else (1, 0)
            centre = int(random.integers(len(ends[0])))
            crops, keypoints = [], []
            smallest = _smallest_windows(random, usual=0.55, close_up=0.25)
            for side, least in zip(order, smallest, strict=True):
                crop, moved = _crop_around(
                    random, images[side], ends[side], ends[side][centre], shape, least
                )
                crops.append(crop)
                keypoints.append(moved)
            limit = np.array([shape[1] - 1, shape[0] - 1])
            inside = np.ones(len(ends[0]), dtype=bool)
            for moved in keypoints:
                inside &= ((moved >= 0) & (moved <= limit)).all(axis=1)
            if inside.sum() < _MIN_MATCHES:
                continue
            return TrainingSample(
                photometric(random, crops[0]),
                photometric(random, crops[1]),
                select_matches(
                    random,
                    keypoints[0][inside],
                    keypoints[1][inside],
                    shape,
                    num_matches,
                    exact=False,
                ),
                source="pairs",
            )
        raise DatasetError(f"pair manifests: no crop with enough matches in {_MAX_ATTEMPTS} draws")


def _crop_around(
    random: np.random.Generator,
    image: ByteImage,
    keypoints: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float64],
    shape: tuple[int, int],
    smallest: float,
) -> tuple[ByteImage, npt.NDArray[np.float64]]:
    """A window that contains ``centre``, resized to ``shape``, and the keypoints in it."""
    height, width = image.shape[:2]
    scale = min(height / shape[0], width / shape[1]) * random.uniform(smallest, 1.0)
    window = np.array([max(16, round(shape[1] * scale)), max(16, round(shape[0] * scale))])
    window = np.minimum(window, [width, height])
    offset = centre - window * random.uniform(0.25, 0.75, 2)
    left, top = np.clip(np.rint(offset), 0, np.array([width, height]) - window).astype(int)
    crop = np.ascontiguousarray(image[top : top + window[1], left : left + window[0]])
    ratio = np.array([shape[1], shape[0]]) / window
    moved = (keypoints - [left, top] + 0.5) * ratio - 0.5
    return resize_image(crop, shape), moved
