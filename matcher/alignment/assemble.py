"""A solution as a reconstruction: cameras, dense pointmaps, triangulated points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from matcher.alignment.anchors import AnchorGrid, Sightings
from matcher.alignment.reprojection import CameraState
from matcher.alignment.solve import Solution
from matcher.geometry.camera import distort_keypoints, normalize, project
from matcher.geometry.pixels import to_original
from matcher.reconstruction import DensePoints, RegisteredImage, SparsePoints
from matcher.structures import Camera, FloatArray, Pose

__all__ = ["in_result_frame", "registered_images", "triangulated_points"]

_GREY = 128
_SPREAD_BLOCKS = 2.0
"""Anchors that nobody saw take their scale from those around, so many blocks away."""
_SAME_KEYPOINT_PX = 2.0


def in_result_frame(solution: Solution) -> CameraState:
    """The state in the frame and unit of the result.

    Known poses say where the world is; without them it is the frame of the first photograph. Two
    of them in different places give its unit; otherwise it is that of the pointmaps (in the
    median), and without pointmaps the median depth is 1.
    """
    collection, state = solution.collection, solution.state
    known = [pose for pose in collection.known_poses if pose is not None]
    scale = 1.0
    if len(known) < 2 or not np.ptp([pose.inverse.translation for pose in known], axis=0).any():
        scale = _unit(solution)
    rotation, translation = np.eye(3), np.zeros(3)
    if not known:
        rotation, translation = state.rotations[0], state.translations[0]
        rotations = state.rotations @ rotation.T
        translations = scale * (state.translations - rotations @ translation)
    else:
        rotations = state.rotations
        # A single known camera stays where it is; all others move towards or away from it.
        origin = known[0].inverse.translation
        translations = scale * (state.translations + rotations @ origin) - rotations @ origin
    return CameraState(
        rotations, translations, state.focals, state.centers, state.inverse_depth / scale
    )


def _unit(solution: Solution) -> float:
    """What to multiply the solution by."""
    depth = np.concatenate([grid.anchor_depths() for grid in solution.collection.grids])
    seen = np.unique(solution.sightings.anchor[solution.good])
    inverse = solution.state.inverse_depth[seen]
    usable = seen[inverse > 0]
    if not len(usable):
        return 1.0
    inverse = solution.state.inverse_depth[usable]
    in_map = np.isfinite(depth[usable])
    if in_map.any():
        return float(np.median(depth[usable][in_map] * inverse[in_map]))
    return float(np.median(inverse))


def registered_images(solution: Solution, state: CameraState) -> tuple[RegisteredImage, ...]:
    """The photographs with their cameras and dense pointmaps; what is known stays as given."""
    collection = solution.collection
    pinholes = [
        replace(
            Camera.pinhole(*state.focals[image], *state.centers[image]),
            size=collection.sizes[image],
        )
        for image in range(len(collection))
    ]
    offsets = np.concatenate([[0], np.cumsum([len(grid) for grid in collection.grids])])
    seen = np.zeros(offsets[-1], dtype=np.bool_)
    seen[solution.sightings.anchor[solution.good]] = True
    images = []
    for image, name in enumerate(collection.names):
        camera = collection.known_cameras[image] or pinholes[image]
        pose = collection.known_poses[image] or Pose(
            state.rotations[image], state.translations[image]
        )
        part = slice(offsets[image], offsets[image + 1])
        dense = _dense(collection.grids[image], state.inverse_depth[part], seen[part], camera, pose)
        images.append(RegisteredImage(name, camera, pose, collection.sizes[image], dense))
    return tuple(images)


def _dense(
    grid: AnchorGrid,
    inverse_depth: FloatArray,
    seen: npt.NDArray[np.bool_],
    camera: Camera,
    pose: Pose,
) -> DensePoints | None:
    """The canonical pointmap, scaled smoothly to the depths of its anchors that were seen."""
    view = grid.canonical
    if view is None:
        return None
    depth = view.points[..., 2].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.log(1 / (inverse_depth * grid.anchor_depths()))
    usable = seen & np.isfinite(factor)
    if not usable.any():
        usable = np.isfinite(factor)
    smooth = _spread(np.where(usable, factor, 0.0), usable, grid.shape)
    height, width = depth.shape
    rows = (np.arange(height) - grid.block_px // 2) / grid.block_px
    columns = (np.arange(width) - grid.block_px // 2) / grid.block_px
    scale = ndimage.map_coordinates(
        smooth, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest"
    )
    depth = depth * np.exp(scale)
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    pixels = to_original(np.stack([x, y], axis=-1).reshape(-1, 2), view.original_from_network)
    rays = normalize(pixels, camera).reshape(height, width, 2)
    in_camera = np.concatenate([rays, np.ones((height, width, 1))], axis=2) * depth[..., None]
    points = pose.inverse.transform(in_camera)
    known = np.isfinite(points).all(axis=2) & (depth > 0)
    return DensePoints(
        np.where(known[..., None], points, 0).astype(np.float32),
        # The canonical confidence says by how much it exceeds 1.
        np.where(known, 1 + view.confidence, 0).astype(np.float32),
        np.full((height, width, 3), _GREY, np.uint8),
        view.original_from_network,
    )


def _spread(
    values: FloatArray, usable: npt.NDArray[np.bool_], shape: tuple[int, int]
) -> FloatArray:
    """(rows, columns) values: smoothed, and carried to where there are none."""
    weight = usable.astype(np.float64).reshape(shape)
    table = values.reshape(shape)
    median = float(np.median(values[usable])) if usable.any() else 0.0
    total, mass = np.zeros(shape), np.zeros(shape)
    strength = 1.0
    # From near to far: where something near is known, what is far has next to no weight.
    for sigma in (_SPREAD_BLOCKS / 2, _SPREAD_BLOCKS, 4 * _SPREAD_BLOCKS):
        total += strength * ndimage.gaussian_filter((table - median) * weight, sigma)
        mass += strength * ndimage.gaussian_filter(weight, sigma)
        strength *= 1e-2
    return median + total / (mass + 1e-9)


def triangulated_points(
    solution: Solution, state: CameraState, images: tuple[RegisteredImage, ...]
) -> SparsePoints:
    """A point for every anchor that others see, with the keypoints that observe it.

    Every match observes one point: that of its end whose anchor more photographs see. Keypoints
    of the home further than two pixels of the view from the point's own do not take part.
    """
    sightings = solution.sightings
    rows = _chosen(sightings, solution.good & (state.inverse_depth[sightings.anchor] > 0))
    part = sightings.select(rows)
    if not len(part):
        return SparsePoints.empty()
    anchors, first, track = np.unique(part.anchor, return_index=True, return_inverse=True)
    own = part.pixel[first]
    near = np.linalg.norm(part.pixel - own[track], axis=1)
    close = near <= _SAME_KEYPOINT_PX * solution.collection.view_px[part.home]
    part, track = part.select(close), track[close]
    homes = sightings.home[rows][first]
    positions = _positions(homes, own, sightings.ratio[rows][first], anchors, state)
    observation_point = np.concatenate([np.arange(len(anchors)), track])
    observation_image = np.concatenate([homes, part.other])
    keypoints = np.concatenate([own, part.seen])
    # A photograph observes a point once: the first match of a pair wins.
    _, single = np.unique(observation_point * len(images) + observation_image, return_index=True)
    observation_point, observation_image, keypoints = (
        observation_point[single],
        observation_image[single],
        keypoints[single],
    )
    errors = np.empty(len(keypoints))
    for index, image in enumerate(images):
        mine = observation_image == index
        if mine.any():
            keypoints[mine] = distort_keypoints(keypoints[mine], image.camera)
            seen = image.cam_from_world.transform(positions[observation_point[mine]])
            errors[mine] = np.linalg.norm(project(seen, image.camera) - keypoints[mine], axis=1)
    return _without_failures(positions, errors, observation_point, observation_image, keypoints)


def _chosen(sightings: Sightings, good: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Rows of one of the two sightings of each good match, the most seen anchors first."""
    count = np.bincount(sightings.anchor[good], minlength=sightings.num_anchors)
    mine, others = count[sightings.anchor], count[sightings.other_anchor]
    wins = (mine > others) | ((mine == others) & (sightings.home < sightings.other))
    rows = np.flatnonzero(good & wins)
    return rows[np.argsort(-mine[rows], kind="stable")]


def _positions(
    homes: npt.NDArray[np.int64],
    pixels: FloatArray,
    ratios: FloatArray,
    anchors: npt.NDArray[np.int64],
    state: CameraState,
) -> FloatArray:
    """(P, 3) points in the world."""
    rays = (pixels - state.centers[homes]) / state.focals[homes]
    depth = ratios / state.inverse_depth[anchors]
    in_camera = np.column_stack([rays, np.ones(len(rays))]) * depth[:, None]
    moved = in_camera - state.translations[homes]
    points: FloatArray = np.einsum("pji,pj->pi", state.rotations[homes], moved)
    return points


def _without_failures(
    positions: FloatArray,
    errors: FloatArray,
    observation_point: npt.NDArray[np.int64],
    observation_image: npt.NDArray[np.int64],
    keypoints: FloatArray,
) -> SparsePoints:
    """Points with two observations at least, all in front of their cameras."""
    usable = np.isfinite(errors)
    count = np.bincount(observation_point[usable], minlength=len(positions))
    stays = count >= 2
    usable &= stays[observation_point]
    renumbered = np.cumsum(stays) - 1
    point = renumbered[observation_point[usable]]
    total = np.bincount(point, errors[usable], minlength=int(stays.sum()))
    return SparsePoints(
        positions[stays],
        np.full((int(stays.sum()), 3), _GREY, np.uint8),
        total / np.maximum(count[stays], 1),
        point,
        observation_image[usable],
        keypoints[usable],
    )
