"""Metric relative pose (Map-free): what a user of augmented reality would see of its error."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import Protocol, ScoredFrame
from benchmarks.core.samples import Dataset, PairSample, PoseTruth
from benchmarks.core.tasks import Answered, OracleOptions, Summary, UnitScore
from benchmarks.metrics.vcre import vcre_px
from benchmarks.tasks.metric_estimation import MetricPoseEstimate, estimate_metric_pose
from benchmarks.tasks.metric_summary import summarise_metric_poses
from benchmarks.tasks.pairs import single_answer
from benchmarks.tasks.pose import PoseTask
from matcher.errors import InputError
from matcher.files import replaced
from matcher.geometry.pose import rotation_error_deg, rotation_to_quaternion
from matcher.structures import Camera, Pose

__all__ = ["MetricPoseTask"]

_NO_POSE = "no pose from the matches"
# One date for all entries: the same answers give the same file.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


class MetricPoseTask:
    """Virtual correspondences, translation in metres and rotation in degrees.

    Precisions and areas count pairs without a pose as wrong. Medians are taken over the answered
    pairs of each scene and averaged over the scenes with answers, as the official evaluation does:
    read them beside the share of answered pairs. Answers are ranked by their number of inliers.
    """

    kind: str = "metric_pose"
    ceiling = 1.0

    def score(self, answers: Sequence[Answered], protocol: Protocol) -> UnitScore:
        """Score one pair: its error is the virtual correspondences', in pixels as stored."""
        answered = single_answer(answers)
        sample, truth = answered.sample, _truth(answered.sample)
        estimate = estimate_metric_pose(answered, protocol)
        values = {
            "rotation_deg": truth.rotation_deg,
            "translation_m": math.inf,
            "rotation_error_deg": math.inf,
            "num_inliers": float(estimate.num_inliers if estimate else 0),
            "is_metric": float(estimate.is_metric if estimate else 0),
        }
        error = math.inf
        if estimate is not None and truth.is_scored:
            pose, expected = estimate.cam1_from_cam0, Pose.from_matrix(truth.cam1_from_cam0)
            size = answered.frame.stored1
            error = vcre_px(pose, expected, Camera.from_matrix(truth.k1, size), size)
            values["rotation_error_deg"] = rotation_error_deg(pose.rotation, expected.rotation)
            # Where the query stands in the reference's frame.
            offset = pose.inverse.translation - expected.inverse.translation
            values["translation_m"] = float(np.linalg.norm(offset))
        return UnitScore(
            sample.unit_name,
            sample.group,
            (error,) if truth.is_scored else (),
            values,
            len(answered.prediction),
            answered.prediction.seconds,
            answered.prediction.failure or ("" if estimate else _NO_POSE),
        )

    def summarise(self, scores: Sequence[UnitScore], protocol: Protocol) -> Summary:
        """The table; nothing is known where a server keeps the poses."""
        return summarise_metric_poses(scores, protocol.auc_thresholds[0])

    def oracle(
        self, sample: PairSample, frame: ScoredFrame, options: OracleOptions
    ) -> MatchPrediction:
        """True matches with their points; nothing where a server keeps the pose."""
        if not _truth(sample).is_scored:
            return MatchPrediction.failed("the true pose is kept by a server")
        return PoseTask().oracle(sample, frame, options)

    def write_submission(
        self, dataset: Dataset, answers: Sequence[Answered], protocol: Protocol, path: Path
    ) -> str | None:
        """Write the zip that the Map-free server takes: ``pose_<scene>.txt`` for every scene.

        A line is ``frame qw qx qy qz tx ty tz confidence``, the query's camera from the reference's
        (whose frame is the world of each scene). Frames without a pose are left out.
        """
        names = [sample.group for sample in dataset.samples]
        names += [name.partition("/")[0] for name, _ in dataset.problems]
        lines: dict[str, list[str]] = {name: [] for name in sorted(set(names))}
        for answered in answers:
            estimate = None
            if not answered.prediction.failure:
                estimate = estimate_metric_pose(answered, protocol)
            if estimate is not None:
                lines[answered.sample.group].append(_submission_line(answered.sample, estimate))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for scene, rows in lines.items():
                entry = zipfile.ZipInfo(f"pose_{scene}.txt", _ZIP_DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, "".join(f"{row}\n" for row in rows))
        count = sum(map(len, lines.values()))
        is_scored = all(_truth(sample).is_scored for sample in dataset.samples)
        verdict = "file written" if is_scored else "file written, not scored"
        return f"{verdict}: {path}, {count} poses of {len(lines)} scenes"


def _truth(sample: PairSample) -> PoseTruth:
    if not isinstance(sample.truth, PoseTruth):
        raise InputError(sample.name, "a PoseTruth", type(sample.truth).__name__)
    return sample.truth


def _submission_line(sample: PairSample, estimate: MetricPoseEstimate) -> str:
    pose = estimate.cam1_from_cam0
    numbers = (*rotation_to_quaternion(pose.rotation), *pose.translation)
    frame = "/".join(sample.image1.parts[-2:])
    return f"{frame} {' '.join(f'{number:.9g}' for number in numbers)} {estimate.num_inliers}"
