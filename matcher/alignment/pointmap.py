"""Global alignment of the pointmaps of many pairs (DUSt3R, arXiv:2312.14132, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from matcher.alignment.agreement import NO_AGREEMENT, agreement
from matcher.alignment.dense import dense_points
from matcher.alignment.graph import PairGraph
from matcher.alignment.initialize import AlignmentState, Known, initialize
from matcher.alignment.objective import BASE_SCALE, PointmapObjective, descend
from matcher.alignment.options import PointmapOptions
from matcher.alignment.views import Frame, FrameView, PixelGrid, ViewStack, stack_views
from matcher.errors import InputError
from matcher.geometry.procrustes import Registration
from matcher.pair_records import PairRecord
from matcher.pointmaps import Pointmaps
from matcher.reconstruction import Reconstruction, RegisteredImage
from matcher.structures import Camera, Pose

__all__ = ["align_pointmaps"]


def align_pointmaps(
    records: Iterable[PairRecord],
    *,
    cameras: Mapping[str, Camera] | None = None,
    poses: Mapping[str, Pose] | None = None,
    options: PointmapOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reconstruction:
    """Photographs, whose pairs have pointmaps, as one reconstruction.

    The largest group of photographs that pairs connect is reconstructed; the others are listed
    with the reason. The same records give the same result.

    Args:
        records: pairs with their pointmaps. Pairs without enough matches, or whose pointmaps
            contradict the matches, are left out.
        cameras: by name, where known; kept as they are. The other cameras get square pixels and,
            unless the options ask for it, a principal point in the middle.
        poses: ``cam_from_world`` by name, where known; kept as they are. Two of them in different
            places give the world its scale.
        options: what is optimised, and for how long.
        progress: is told (steps done, steps in all).

    Returns:
        Cameras, poses and dense pointmaps (all grey: no photograph is at hand). Without known
        poses the world is the frame of the first photograph's camera. Its unit is that of the
        pointmaps, of all of them in the (geometric) mean, or of the known poses.

    Raises:
        InputError: a pair with matches but no pointmaps, photographs or pointmaps of one name
            with different sizes, a camera that belongs to another size.
    """
    options = options or PointmapOptions()
    graph, unregistered = _believed(records, cameras or {}, options).largest()
    if not graph.records:
        alone = {name: graph.why_alone(name) for name in graph.names}
        return Reconstruction((), unregistered={**alone, **unregistered})
    stack = _stack(graph, options.max_points)
    known = Known.of(
        stack.grids,
        [_checked_camera(graph, index, cameras or {}) for index in range(len(graph.names))],
        [(poses or {}).get(name) for name in graph.names],
    )
    start = initialize(stack, known)
    factor = BASE_SCALE / start.mean_scale
    objective = PointmapObjective(
        stack,
        known,
        start.scaled(factor),
        optimize_principal_points=options.optimize_principal_points,
    )
    descend(objective, options, progress)
    unit = factor if known.fixes_scale else BASE_SCALE
    state = _in_world(objective.state().scaled(1 / unit), known)
    images = tuple(_registered(stack, known, state, image) for image in range(len(stack.grids)))
    return Reconstruction(images, unregistered=unregistered)


def _believed(
    records: Iterable[PairRecord], cameras: Mapping[str, Camera], options: PointmapOptions
) -> PairGraph:
    """The pairs whose pointmaps and matches say the same."""
    graph = PairGraph.from_records(
        records, min_matches=options.min_matches, min_overlap=options.min_overlap
    )
    for record in graph.records:
        if record.pointmaps is None:
            raise InputError("records", "pairs with pointmaps", f"none for {record.names}")
    return graph.without(
        {
            record.names: NO_AGREEMENT
            for record in graph.records
            if options.min_agreement > 0
            and agreement(record, cameras.get(record.name0)) < options.min_agreement
        }
    )


def _stack(graph: PairGraph, max_points: int | None) -> ViewStack:
    grids: dict[int, PixelGrid] = {}
    frames = []
    for record, (i, j) in zip(graph.records, graph.ends, strict=True):
        maps = record.pointmaps
        assert maps is not None
        for image, confidence, original_from_network in (
            (i, maps.confidence0, maps.original0_from_network),
            (j, maps.confidence1, maps.original1_from_network),
        ):
            grid = PixelGrid(
                graph.names[image],
                graph.sizes[image],
                (confidence.shape[0], confidence.shape[1]),
                original_from_network,
            )
            first = grids.setdefault(image, grid)
            if not np.allclose(first.original_from_network, original_from_network):
                raise InputError("records", f"one pixel grid for {grid.name}", "two")
        frames += _frames(maps, i, j)
    return stack_views([grids[image] for image in sorted(grids)], frames, max_points)


def _frames(maps: Pointmaps, i: int, j: int) -> list[Frame]:
    """Both pointmaps in camera i; and image j's in its own camera where it was computed."""
    frames = [
        Frame(
            FrameView(i, maps.points0, maps.confidence0),
            FrameView(j, maps.points1, maps.confidence1),
        )
    ]
    if maps.points1_in_camera1 is not None:
        frames.append(Frame(FrameView(j, maps.points1_in_camera1, maps.confidence1)))
    return frames


def _checked_camera(graph: PairGraph, image: int, cameras: Mapping[str, Camera]) -> Camera | None:
    camera, size = cameras.get(graph.names[image]), graph.sizes[image]
    if camera is not None and camera.size is not None and camera.size != size:
        raise InputError(
            f"camera of {graph.names[image]}",
            f"one for {size.width} x {size.height} pixels",
            f"{camera.size.width} x {camera.size.height}",
        )
    return camera


def _in_world(state: AlignmentState, known: Known) -> AlignmentState:
    """The state in the world of the given poses, or of the first camera."""
    if known.fixes_scale:
        return state
    anchor = next((row for row, pose in enumerate(known.poses) if pose is not None), 0)
    given = known.poses[anchor] or Pose.identity()
    move = given.inverse @ state.poses[anchor]
    return replace(
        state,
        poses=tuple(pose @ move.inverse for pose in state.poses),
        frames=tuple(
            Registration(move @ frame.target_from_source, frame.scale) for frame in state.frames
        ),
    )


def _registered(
    stack: ViewStack, known: Known, state: AlignmentState, image: int
) -> RegisteredImage:
    grid = stack.grids[image]
    focal, (x, y) = float(state.focals[image]), state.centers[image]
    camera = known.cameras[image] or Camera.pinhole(focal, focal, float(x), float(y), grid.size)
    pose = known.poses[image] or state.poses[image]
    dense = dense_points(stack, state, image, camera)
    return RegisteredImage(grid.name, camera, pose, grid.size, dense)
