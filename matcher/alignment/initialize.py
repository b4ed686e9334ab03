"""Where the alignment of pointmaps starts: along the spanning tree of the most confident pairs.

DUSt3R (arXiv:2312.14132), section 3.3: pairs join one after the other, each registered on the
photograph that it shares with those already joined. The released system takes the focal of a
photograph that joins from the pair before it; here it is the median over all of the photograph's
own pointmaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from matcher.alignment.graph import spanning_tree
from matcher.alignment.views import PixelGrid, ViewStack
from matcher.errors import InputError
from matcher.geometry.camera import camera_from_focal, normalize
from matcher.geometry.focal import focal_from_field_of_view
from matcher.geometry.pixels import image_center
from matcher.geometry.pnp import estimate_absolute_pose
from matcher.geometry.procrustes import Registration, fit_registration
from matcher.geometry.ransac import RansacOptions
from matcher.structures import Camera, FloatArray, Pose

__all__ = ["AlignmentState", "Known", "image_rays", "initialize"]

_PNP_ERROR_PX = 5.0  # pixels of the pointmap
_PNP_ITERATIONS = 1_000
_FOCAL_RATIOS = (0.5, 3.5)  # of the focal of a 60 degree view
_SMALLEST_DEPTH = 1e-3  # of the median depth of the photograph


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is given of each photograph; ``None`` where it must be estimated.

    Attributes:
        cameras: in original pixels.
        poses: cam_from_world.
        centers: (I, 2) principal points to start from (x, y), original pixels; those of the given
            cameras are not read.
    """

    cameras: tuple[Camera | None, ...]
    poses: tuple[Pose | None, ...]
    centers: FloatArray

    @classmethod
    def of(
        cls,
        grids: Sequence[PixelGrid],
        cameras: Sequence[Camera | None] | None = None,
        poses: Sequence[Pose | None] | None = None,
    ) -> Known:
        """Principal points in the middle of the photographs."""
        nothing = (None,) * len(grids)
        centers = np.array([image_center(grid.size) for grid in grids])
        return cls(tuple(cameras or nothing), tuple(poses or nothing), centers)

    @property
    def fixes_scale(self) -> bool:
        """Whether the given poses say how large the world is."""
        places = np.array([pose.inverse.translation for pose in self.poses if pose is not None])
        return len(places) > 1 and bool(np.ptp(places, axis=0).max() > 0)


@dataclass(frozen=True, slots=True, eq=False)
class AlignmentState:
    """All unknowns of the alignment.

    Attributes:
        poses: cam_from_world of each photograph.
        focals: (I,) original pixels.
        centers: (I, 2) principal points, original pixels.
        depth: (I, P) z-depth of the sampled pixels, > 0.
        frames: similarity that maps each frame into the world.
    """

    poses: tuple[Pose, ...]
    focals: FloatArray
    centers: FloatArray
    depth: FloatArray
    frames: tuple[Registration, ...]

    def scaled(self, factor: float) -> AlignmentState:
        """The same in a world ``factor`` times as large."""
        return replace(
            self,
            poses=tuple(Pose(pose.rotation, factor * pose.translation) for pose in self.poses),
            depth=factor * self.depth,
            frames=tuple(
                Registration(
                    Pose(frame.target_from_source.rotation, factor * shift), factor * frame.scale
                )
                for frame in self.frames
                for shift in (frame.target_from_source.translation,)
            ),
        )

    @property
    def mean_scale(self) -> float:
        """Geometric mean of the scales of the frames."""
        return float(np.exp(np.mean([np.log(frame.scale) for frame in self.frames])))


def image_rays(stack: ViewStack, known: Known, state: AlignmentState) -> FloatArray:
    """(I, P, 2) coordinates x / z, y / z of the viewing rays of the sampled pixels.

    NaN where the lens of a given camera has no inverse.
    """
    rays = (stack.pixels - state.centers[:, None]) / state.focals[:, None, None]
    for image, camera in enumerate(known.cameras):
        if camera is not None:
            rays[image] = normalize(stack.pixels[image], camera)
    return rays


def initialize(stack: ViewStack, known: Known) -> AlignmentState:
    """The state from which the optimisation starts, in the units of the given poses, if any.

    Args:
        stack: views whose frames connect all photographs.
        known: cameras and poses that are given; they are kept as they are.

    Raises:
        InputError: frames that leave a photograph unconnected.
    """
    focals = _initial_focals(stack, known)
    points, poses = _grow_tree(stack, known)
    for image, pose in enumerate(poses):
        if pose is None or known.cameras[image] is not None:
            found = _pose_by_pnp(stack, known, focals, image, points[image])
            poses[image] = found or pose or _pose_by_registration(stack, image, points[image])
    placed = [pose or Pose.identity() for pose in poses]
    world = _known_from_grown(placed, known)
    points = world.transform(points)
    estimated = [_moved_pose(pose, world) for pose in placed]
    final = tuple(given or pose for given, pose in zip(known.poses, estimated, strict=True))
    depth = np.stack(
        [_depth(stack, image, points[image], final[image]) for image in range(len(final))]
    )
    state = AlignmentState(final, focals, known.centers, depth, ())
    return replace(state, frames=_register_frames(stack, known, state, points))


def _initial_focals(stack: ViewStack, known: Known) -> FloatArray:
    """(I,) given focals, or the median of what the own pointmaps of a photograph say."""
    references = np.array([focal_from_field_of_view(grid.size) for grid in stack.grids])
    focals = np.full(len(stack.grids), np.nan)
    for image, (grid, camera) in enumerate(zip(stack.grids, known.cameras, strict=True)):
        if camera is not None:
            focals[image] = float(np.sqrt(np.prod(camera.focals)))
            continue
        count = int(np.prod(grid.lattice_shape))
        votes = [
            grid.estimate_focal(stack.points[view, :count], known.centers[image])
            for view in stack.views_of(image)
            if stack.is_own[view]
        ]
        found = [vote for vote in votes if vote is not None]
        if found:
            low, high = (ratio * references[image] for ratio in _FOCAL_RATIOS)
            focals[image] = np.clip(np.median(found), low, high)
    # A photograph without a pointmap of its own sees as wide as the others do.
    ratios = (focals / references)[np.isfinite(focals)]
    typical = float(np.median(ratios)) if len(ratios) else 1.0
    return np.where(np.isfinite(focals), focals, typical * references)


def _grow_tree(stack: ViewStack, known: Known) -> tuple[FloatArray, list[Pose | None]]:
    """(I, P, 3) points of all photographs in one world, and the poses that come with them."""
    count = len(stack.grids)
    mean = stack.confidence.sum(axis=1) / stack.is_pixel.sum(axis=1)[stack.image]
    frame_of: dict[tuple[int, int], tuple[float, int]] = {}
    for frame in range(len(stack.frames)):
        other = stack.other_view(frame)
        if other is None:
            continue
        own = stack.own_view(frame)
        ends = (int(stack.image[own]), int(stack.image[other]))
        candidate = (float(mean[own] * mean[other]), frame)
        if candidate[0] > frame_of.get(ends, (-np.inf, -1))[0]:
            frame_of[ends] = candidate
    edges = spanning_tree(count, [(*ends, weight) for ends, (weight, _) in frame_of.items()])
    if len(edges) < count - 1:
        raise InputError("frames", "pairs that connect all photographs", f"{len(edges)} in a tree")
    points = np.zeros((count, stack.points.shape[1], 3))
    poses: list[Pose | None] = [None] * count
    done: set[int] = set()
    while edges:
        edge = next((e for e in edges if not done or done & set(e)), edges[0])
        edges.remove(edge)
        frame = frame_of[edge][1]
        own, other = stack.own_view(frame), stack.other_view(frame)
        assert other is not None
        shared = own if edge[0] in done else other
        world = Registration(Pose.identity(), 1.0)
        if done:
            world = _register(stack, shared, points[stack.image[shared]]) or world
        for image, view in zip(edge, (own, other), strict=True):
            if image not in done:
                points[image] = world.transform(stack.points[view])
        if poses[edge[0]] is None:
            poses[edge[0]] = world.target_from_source.inverse
        done |= set(edge)
    return points, poses


def _register(stack: ViewStack, view: int, target: FloatArray) -> Registration | None:
    """The similarity that maps a view onto (P, 3) points of its photograph."""
    usable = (stack.confidence[view] > 0) & np.isfinite(target).all(axis=1)
    return fit_registration(
        stack.points[view][usable], target[usable], weights=stack.confidence[view][usable]
    )


def _pose_by_registration(stack: ViewStack, image: int, points: FloatArray) -> Pose | None:
    """The pose that puts a photograph's own pointmap onto its points."""
    own = [view for view in stack.views_of(image) if stack.is_own[view]]
    if not own:
        return None
    best = max(own, key=lambda view: float(stack.confidence[view].sum()))
    world = _register(stack, best, points)
    return None if world is None else world.target_from_source.inverse


def _pose_by_pnp(
    stack: ViewStack, known: Known, focals: FloatArray, image: int, points: FloatArray
) -> Pose | None:
    grid = stack.grids[image]
    camera = known.cameras[image] or replace(
        camera_from_focal(float(focals[image]), grid.size),
        params=(*focals[[image, image]], *known.centers[image]),
    )
    views = stack.views_of(image)
    rows = (stack.confidence[views] > 0).any(axis=0)
    found = estimate_absolute_pose(
        stack.pixels[image][rows],
        points[rows],
        camera,
        RansacOptions(
            max_error_px=_PNP_ERROR_PX * grid.original_per_network,
            max_iterations=_PNP_ITERATIONS,
        ),
    )
    return None if found is None else found.cam_from_world


def _known_from_grown(poses: Sequence[Pose], known: Known) -> Registration:
    """The similarity that takes the grown world onto the given poses."""
    rows = [image for image, pose in enumerate(known.poses) if pose is not None]
    if not rows:
        return Registration(Pose.identity(), 1.0)
    pairs = [(given, poses[image]) for image, given in enumerate(known.poses) if given is not None]
    rotation = Rotation.from_matrix(
        np.stack([given.rotation.T @ grown.rotation for given, grown in pairs])
    ).mean()
    target = np.stack([given.inverse.translation for given, _ in pairs])
    source = rotation.apply(np.stack([grown.inverse.translation for _, grown in pairs]))
    scale = 1.0
    if known.fixes_scale:
        i, j = np.triu_indices(len(rows), 1)
        lengths = [np.linalg.norm(places[i] - places[j], axis=1) for places in (target, source)]
        apart = (lengths[0] > 0) & (lengths[1] > 0)
        scale = float(np.median(lengths[0][apart] / lengths[1][apart])) if apart.any() else 1.0
    shift = np.median(target - scale * source, axis=0)
    return Registration(Pose(rotation.as_matrix(), shift), scale)


def _moved_pose(pose: Pose, world: Registration) -> Pose:
    """A pose after its world was mapped by a similarity."""
    rotation = pose.rotation @ world.target_from_source.rotation.T
    center = world.transform(pose.inverse.translation)
    return Pose(rotation, -rotation @ center)


def _depth(stack: ViewStack, image: int, points: FloatArray, pose: Pose) -> FloatArray:
    """(P,) depth of a photograph's points, made positive."""
    depth = pose.transform(points)[:, 2]
    usable = (stack.confidence[stack.views_of(image)] > 0).any(axis=0) & np.isfinite(depth)
    ahead = depth[usable & (depth > 0)]
    typical = float(np.median(ahead)) if len(ahead) else 1.0
    floor = _SMALLEST_DEPTH * typical
    kept: FloatArray = np.where(usable, np.maximum(depth, floor), typical)
    return kept


def _register_frames(
    stack: ViewStack, known: Known, state: AlignmentState, points: FloatArray
) -> tuple[Registration, ...]:
    """Where each frame lies: its own pointmap put onto the points of its photograph."""
    rays = image_rays(stack, known, state)
    frames = []
    for frame in range(len(stack.frames)):
        view = stack.own_view(frame)
        image = int(stack.image[view])
        target = points[image]
        if known.poses[image] is not None:  # the points may have been grown around another pose
            ahead = np.concatenate([rays[image], np.ones((len(target), 1))], axis=1)
            target = state.poses[image].inverse.transform(ahead * state.depth[image][:, None])
        found = _register(stack, view, target)
        frames.append(found or Registration(state.poses[image].inverse, 1.0))
    return tuple(frames)
