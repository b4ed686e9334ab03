"""``python -m benchmarks multiview --root DIR``: relative poses of aligned photographs.

Every scene of the folder is matched pair by pair (which is kept and resumed), aligned with its
true cameras and again with none, and scored. A scene is a folder with ``images.jsonl``: one JSON
object a line, with ``image`` (a path below the folder), ``K`` and ``cam_from_world``.

A pair *shares content* when at least 30 of its matches, and twice as many as wrong matches would
reach by chance, lie within 2 pixels of the true epipolar lines and in front of both true cameras.
A pair is right when its relative rotation is within 5 degrees and the direction of its translation
within 10; pairs of photographs that have no place are wrong. Directions of pairs taken from one
place mean nothing; they count all the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.core.samples import missing_data
from benchmarks.datasets.building import as_matrix, as_rigid
from benchmarks.run import pinned_threads
from matcher import Matcher, MatchingOptions, PairOptions, Photographs
from matcher.alignment.options import PointmapOptions
from matcher.alignment.pointmap import align_pointmaps
from matcher.alignment.sparse import align_sparse
from matcher.collection_run import run_pairs
from matcher.errors import DatasetError, InputError, MatcherError
from matcher.geometry.essential import epipolar_errors_px
from matcher.geometry.pose import rotation_error_deg, translation_error_deg
from matcher.geometry.support import required_inliers
from matcher.geometry.triangulation import triangulate
from matcher.match_store import MatchStore
from matcher.pair_records import PairRecord
from matcher.pairing import complete_pairs, name_pairs
from matcher.reconstruction import Reconstruction
from matcher.structures import Camera, Pose

__all__ = ["SceneScore", "SceneTruth", "main", "read_scene", "score", "shares_content"]

_TREE = ("SCENE/images.jsonl   image, K, cam_from_world, one JSON object a line", "SCENE/images/")
_CONTENT_PX, _LEAST_CONTENT, _CHANCE_FACTOR = 2.0, 30, 2.0
_ROTATION_DEG, _DIRECTION_DEG = 5.0, 10.0
_TITLE = "Several photographs of one place"


@dataclass(frozen=True, slots=True, eq=False)
class SceneTruth:
    """The true cameras and poses of a scene's photographs, by name."""

    photographs: Photographs
    cameras: dict[str, Camera]
    poses: dict[str, Pose]

    def relative(self, name0: str, name1: str) -> Pose:
        """``cam1_from_cam0``."""
        return self.poses[name1] @ self.poses[name0].inverse


@dataclass(frozen=True, slots=True)
class SceneScore:
    """Errors over the pairs that share content.

    Attributes:
        registered: photographs that have a place.
        photographs: in all.
        pairs: that share content.
        right: share of them within both thresholds.
        rotation_deg: median error.
        direction_deg: median error.
        seconds: of the alignment, wall clock.
    """

    registered: int
    photographs: int
    pairs: int
    right: float
    rotation_deg: float
    direction_deg: float
    seconds: float


def read_scene(folder: Path) -> SceneTruth:
    """The truth of a scene.

    Raises:
        DatasetError: not there, or a line that is not what it should be.
    """
    path = folder / "images.jsonl"
    if not path.is_file():
        raise missing_data(_TITLE, folder, _TREE, "photographs with known cameras")
    cameras, poses = {}, {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            name = str(entry["image"])
            cameras[name] = Camera.from_matrix(as_matrix("K", entry["K"], (3, 3)))
            pose = as_matrix("cam_from_world", entry["cam_from_world"], (4, 4))
            rigid = as_rigid("cam_from_world", pose[:3, :3], pose[:3, 3])
            poses[name] = Pose.from_matrix(rigid)
        except (ValueError, KeyError, TypeError, MatcherError) as error:
            raise DatasetError(f"{path}:{number}: {error}") from None
    return SceneTruth(Photographs(folder, tuple(cameras)), cameras, poses)


def shares_content(record: PairRecord, truth: SceneTruth) -> bool:
    """Whether two photographs show a common place (the module's definition)."""
    camera0, camera1 = truth.cameras[record.name0], truth.cameras[record.name1]
    pose = truth.relative(record.name0, record.name1)
    length = float(np.linalg.norm(pose.translation))
    if not len(record) or length == 0:
        return False
    pose = Pose(pose.rotation, pose.translation / length)
    keypoints0 = record.matches.keypoints0.numpy().astype(np.float64)
    keypoints1 = record.matches.keypoints1.numpy().astype(np.float64)
    near = epipolar_errors_px(keypoints0, keypoints1, camera0, camera1, pose) <= _CONTENT_PX
    points = triangulate(keypoints0[near], keypoints1[near], camera0, camera1, pose)
    count = int(np.isfinite(points).all(axis=1).sum())
    chance = required_inliers(len(record), record.size0, record.size1, _CONTENT_PX, _LEAST_CONTENT)
    return count >= _CHANCE_FACTOR * chance


def score(
    found: Reconstruction,
    truth: SceneTruth,
    pairs: Sequence[tuple[str, str]],
    seconds: float,
) -> SceneScore:
    """Errors of a reconstruction over pairs of photographs."""
    rotations, directions = [], []
    placed = set(found.names)
    for name0, name1 in pairs:
        if name0 not in placed or name1 not in placed:
            rotations.append(180.0)
            directions.append(180.0)
            continue
        pose, true = found.cam1_from_cam0(name0, name1), truth.relative(name0, name1)
        rotations.append(rotation_error_deg(pose.rotation, true.rotation))
        directions.append(translation_error_deg(pose.translation, true.translation))
    rotation, direction = np.array(rotations), np.nan_to_num(np.array(directions), nan=180.0)
    right = (rotation <= _ROTATION_DEG) & (direction <= _DIRECTION_DEG)
    return SceneScore(
        len(found.images),
        len(truth.photographs),
        len(pairs),
        float(right.mean()) if len(pairs) else float("nan"),
        float(np.median(rotation)) if len(pairs) else float("nan"),
        float(np.median(direction)) if len(pairs) else float("nan"),
        seconds,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status (2: bad input)."""
    options = _parser().parse_args(arguments)
    try:
        with pinned_threads(options.threads):
            _run(options)
    except MatcherError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks multiview", description=_TITLE)
    parser.add_argument("--root", type=Path, required=True, help="folder of the scenes")
    parser.add_argument("--scenes", help="names, with commas; by default all")
    parser.add_argument("--model", default="small")
    parser.add_argument("--method", choices=("sparse", "pointmaps"), default="sparse")
    parser.add_argument("--cameras", choices=("known", "unknown", "both"), default="both")
    parser.add_argument("--cache", type=Path, default=Path("benchmark-cache"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-size", type=int, default=512)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    return parser


def _run(options: argparse.Namespace) -> None:
    matcher: Matcher | None = None
    rows = []
    print(f"{'scene':16s} {'cameras':8s} placed  pairs  right  rotation  direction  seconds")
    for folder in _scenes(options.root, options.scenes):
        truth = read_scene(folder)
        if matcher is None:
            matcher = _matcher(options)
        with _matched(matcher, truth, folder.name, options) as store:
            content = [
                record.names
                for record in store.records(keep_pointmaps=False)
                if shares_content(record, truth)
            ]
            wanted = ("known", "unknown") if options.cameras == "both" else (options.cameras,)
            for known in wanted:
                cameras = truth.cameras if known == "known" else {}
                started = time.perf_counter()
                found = _aligned(store, cameras, options.method)
                result = score(found, truth, content, time.perf_counter() - started)
                rows.append({"scene": folder.name, "cameras": known, **_as_dict(result)})
                print(_line(folder.name, known, result), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def _scenes(root: Path, names: str | None) -> Iterator[Path]:
    there = sorted(path.parent for path in root.glob("*/images.jsonl"))
    if not there:
        raise missing_data(_TITLE, root, _TREE, "photographs with known cameras")
    if names is None:
        yield from there
        return
    by_name = {folder.name: folder for folder in there}
    for name in names.split(","):
        if name not in by_name:
            raise InputError("--scenes", f"names among {', '.join(by_name)}", name)
        yield by_name[name]


def _matcher(options: argparse.Namespace) -> Matcher:
    pair = PairOptions(
        max_size=options.max_size, crops="never", matching=MatchingOptions(symmetric=True)
    )
    return Matcher.from_pretrained(options.model, device=options.device, options=pair)


def _matched(
    matcher: Matcher, truth: SceneTruth, scene: str, options: argparse.Namespace
) -> MatchStore:
    """The matches of all pairs, from the cache as far as it has them."""
    folder = options.cache / f"multiview-{Path(options.model).stem}-{options.max_size}-{scene}"
    names = truth.photographs.names
    pairs = name_pairs(names, complete_pairs(len(names)))
    store = MatchStore.resume(
        folder, truth.photographs, matcher.info, matcher.options, pointmaps="float16"
    )
    with tqdm(total=len(pairs), desc=scene, unit="pair", dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            del total
            bar.update(done - bar.n)

        run_pairs(matcher, store, pairs, progress=show)
    return store


def _aligned(store: MatchStore, cameras: dict[str, Camera], method: str) -> Reconstruction:
    if method == "pointmaps":
        return align_pointmaps(store.records(), cameras=cameras, options=PointmapOptions())
    return align_sparse(store.records(), cameras=cameras)


def _as_dict(result: SceneScore) -> dict[str, float]:
    return {name: getattr(result, name) for name in SceneScore.__slots__}


def _line(scene: str, cameras: str, result: SceneScore) -> str:
    return (
        f"{scene:16s} {cameras:8s} {result.registered:3d}/{result.photographs:<3d}"
        f"{result.pairs:6d}  {100 * result.right:4.0f} %  {result.rotation_deg:7.2f}"
        f"  {result.direction_deg:9.2f}  {result.seconds:7.1f}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
