"""Are the pointmaps right? ``python -m benchmarks pointmaps --views FILE --models small``.

Frames with depth and poses (a view manifest) are paired with the frame whose overlap is nearest to
``--overlap``, and matched. Of every pair, three numbers:

- *depth*: the median over pixels of ``|s z - z*| / z*`` for view 0, where ``z`` is the pointmap's
  depth, ``z*`` the measured one, and ``s`` the median of ``z* / z`` (a pointmap has no scale);
- *points of view 1*: the median of ``|s X - X*| / |X*|`` over view 1's pixels, in camera 0's frame,
  with the same ``s``: the part of a pointmap that needs the other photograph;
- *focal*: ``|f - f*| / f*`` of view 0, estimated from its pointmap alone.

Each model has a second row: its pointmaps brought to the points where the rays of its own matches
meet (``PairResult.refined_pointmaps``), by the pose that these matches give without a camera being
known. Pairs without such a pose count as they were.

A pointmap that knows nothing is the row to beat: one depth everywhere, and all points of view 1 at
that depth on the axis of camera 0.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from benchmarks.metrics.bootstrap import bootstrap_interval
from benchmarks.run import pinned_threads
from matcher import Matcher, PairOptions
from matcher.errors import InputError, MatcherError
from matcher.files import replaced
from matcher.pointmaps import Pointmaps
from matcher.structures import FloatArray
from matcher.synthetic.pairs import points_in_camera0
from matcher.training.posed_depth import DepthGroup, posed_groups

__all__ = [
    "PointTruth",
    "PointmapErrors",
    "as_markdown",
    "chosen_pairs",
    "main",
    "point_truth",
    "pointmap_errors",
]

_MIN_PIXELS = 100
_COLUMNS = ("depth", "points of view 1", "focal")


@dataclass(frozen=True, slots=True)
class PointmapErrors:
    """Relative errors of one pair; NaN where nothing could be compared.

    Attributes:
        depth: of view 0.
        points1: of view 1's points in camera 0's frame.
        focal: of photograph 0.
    """

    depth: float
    points1: float
    focal: float


@dataclass(frozen=True, slots=True, eq=False)
class PointTruth:
    """What was measured of a pair.

    Attributes:
        points0, points1: (H, W, 3) of both photographs in camera 0's frame, NaN where unknown.
        focal0: of photograph 0, pixels.
    """

    points0: FloatArray
    points1: FloatArray
    focal0: float


def chosen_pairs(group: DepthGroup, count: int, overlap: float) -> list[tuple[int, int]]:
    """``count`` frames, evenly spread, each with the frame whose overlap is nearest to a value."""
    frames = np.unique(np.linspace(0, len(group.images) - 1, count).round().astype(int))
    shared = np.minimum(group.overlaps, group.overlaps.T).astype(np.float64)
    np.fill_diagonal(shared, np.inf)
    return [(int(frame), int(np.abs(shared[frame] - overlap).argmin())) for frame in frames]


def point_truth(group: DepthGroup, first: int, second: int) -> PointTruth:
    """What depth and poses say about two frames of a place."""
    pose = group.cam_from_world[second] @ np.linalg.inv(group.cam_from_world[first])
    depths = [torch.from_numpy(group.depths[index]) for index in (first, second)]
    cameras = [torch.from_numpy(group.intrinsics[index]) for index in (first, second)]
    points = points_in_camera0(depths[0], cameras[0], depths[1], cameras[1], torch.from_numpy(pose))
    k = group.intrinsics[first]
    known = [
        np.where((depth > 0).numpy()[..., None], part.double().numpy(), np.nan)
        for depth, part in zip(depths, points, strict=True)
    ]
    return PointTruth(known[0], known[1], math.sqrt(float(k[0, 0] * k[1, 1])))


def pointmap_errors(maps: Pointmaps | None, truth: PointTruth) -> PointmapErrors:
    """Compare a pair's pointmaps with the truth; ``None``: the row that knows nothing."""
    if maps is None:
        found0, found1 = truth.points0, truth.points1
        middle = np.array([0.0, 0.0, 1.0])
        points0, points1 = (
            np.broadcast_to(middle, found0.shape),
            np.broadcast_to(middle, found1.shape),
        )
        focal = None
    else:
        points0, points1 = maps.points0.astype(np.float64), maps.points1.astype(np.float64)
        found0 = _at_pixels(truth.points0, maps.original0_from_network, points0.shape[:2])
        found1 = _at_pixels(truth.points1, maps.original1_from_network, points1.shape[:2])
        focal = maps.focal0()
    # Depth 0 has no ratio to the true one.
    known0 = np.logical_and(_both_known(points0, found0), points0[..., 2] != 0)
    known1 = _both_known(points1, found1)
    nothing = PointmapErrors(np.nan, np.nan, np.nan)
    if known0.sum() < _MIN_PIXELS:
        return nothing
    depth, true_depth = points0[known0][:, 2], found0[known0][:, 2]
    scale = float(np.median(true_depth / depth))
    distance = np.linalg.norm(scale * points1[known1] - found1[known1], axis=1)
    relative = distance / np.linalg.norm(found1[known1], axis=1)
    return PointmapErrors(
        float(np.median(np.abs(scale * depth - true_depth) / true_depth)),
        float(np.median(relative)) if len(relative) >= _MIN_PIXELS else np.nan,
        np.nan if focal is None else abs(focal - truth.focal0) / truth.focal0,
    )


def _both_known(points: FloatArray, truth: FloatArray) -> npt.NDArray[np.bool_]:
    finite = (np.isfinite(points).all(axis=2), np.isfinite(truth).all(axis=2))
    known: npt.NDArray[np.bool_] = np.logical_and(*finite)
    return known


def _at_pixels(
    points: FloatArray, original_from_network: FloatArray, shape: tuple[int, ...]
) -> FloatArray:
    """The nearest original pixel's point for every pixel of the network's view."""
    rows, columns = np.indices(shape)
    pixels = np.stack([columns, rows], axis=-1).astype(np.float64)
    places = pixels @ original_from_network[:2, :2].T + original_from_network[:2, 2]
    nearest = places.round().astype(int)
    height, width = points.shape[:2]
    x, y = nearest[..., 0], nearest[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    taken = points[y.clip(0, height - 1), x.clip(0, width - 1)]
    return np.where(inside[..., None], taken, np.nan)


def as_markdown(rows: Sequence[tuple[str, Sequence[PointmapErrors]]], source: str) -> str:
    """A row a model: medians over pairs, percent, 95 % bootstrap intervals in brackets."""
    count = len(rows[0][1])
    lines = [
        f"Relative errors of pointmaps on {count} pairs of `{source}`, percent: medians over "
        f"pairs, 95 % bootstrap intervals over pairs in brackets; depth and points after one "
        f"scale a pair.",
        "",
        f"| model | {' | '.join(_COLUMNS)} |",
        f"| --- | {' | '.join('---' for _ in _COLUMNS)} |",
    ]
    for name, errors in rows:
        columns = [[getattr(one, key) for one in errors] for key in ("depth", "points1", "focal")]
        lines.append(f"| {name} | {' | '.join(_cell(np.array(values)) for values in columns)} |")
    return "\n".join(lines) + "\n"


def _cell(values: FloatArray) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "-"
    low, high = bootstrap_interval(known, lambda rows: float(np.median(rows)))
    left_out = f", {len(values) - len(known)} without" if len(known) < len(values) else ""
    return f"{100 * np.median(known):.1f} ({100 * low:.0f} to {100 * high:.0f}{left_out})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status (2: bad input)."""
    options = _parser().parse_args(sys.argv[1:] if arguments is None else list(arguments))
    try:
        with pinned_threads(options.threads):
            table = _run(options)
            if options.report is not None:
                options.report.mkdir(parents=True, exist_ok=True)
                with replaced(options.report / "pointmaps.md") as temporary:
                    temporary.write_text(table, "utf-8")
    except MatcherError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table, end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks pointmaps")
    parser.add_argument("--views", type=Path, required=True, help="view manifest with depth")
    parser.add_argument("--models", default="small", help="names or files, with commas")
    parser.add_argument("--pairs", type=int, default=40, help="frames of each place, evenly spread")
    parser.add_argument("--overlap", type=float, default=0.6, help="of the two frames, in (0, 1)")
    parser.add_argument("--max-size", type=int, default=PairOptions().max_size)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=Path, help="folder for the table")
    return parser


def _run(options: argparse.Namespace) -> str:
    if options.pairs < 2:
        raise InputError("--pairs", "at least 2", f"{options.pairs}")
    if not 0 < options.overlap < 1:
        raise InputError("--overlap", "a share in (0, 1)", f"{options.overlap}")
    groups = posed_groups([str(options.views)])
    pairs = [
        (group, first, second, point_truth(group, first, second))
        for group in groups
        for first, second in chosen_pairs(group, options.pairs, options.overlap)
    ]
    rows = [("one depth everywhere", [pointmap_errors(None, pair[-1]) for pair in pairs])]
    for name in options.models.split(","):
        matcher = Matcher.from_pretrained(
            name,
            device=options.device,
            options=PairOptions(max_size=options.max_size, crops="never"),
        )
        alone, refined = list[PointmapErrors](), list[PointmapErrors]()
        for group, first, second, truth in tqdm(pairs, desc=name, leave=False):
            result = matcher.match(group.images[first], group.images[second])
            if result.pointmaps is None:
                raise InputError("--models", "a network with pointmaps", name)
            alone.append(pointmap_errors(result.pointmaps, truth))
            better = result.refined_pointmaps(result.relative_pose()).pointmaps
            refined.append(alone[-1] if better is None else pointmap_errors(better, truth))
        rows += [(name, alone), (f"{name}, with its matches", refined)]
    return as_markdown(rows, options.views.name)


if __name__ == "__main__":
    raise SystemExit(main())
