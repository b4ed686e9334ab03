"""The named protocols of pairs: one per published way to score, and ours.

They differ in estimator, threshold and iterations, and on the same matches by 10 points of AUC and
more; a number without the name of its protocol says nothing. A data set takes a preset as it is, or
with the resize rule that its official evaluation uses (:func:`with_resize`).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from benchmarks.core.protocols import EstimatorOptions, Protocol, ResizeRule

__all__ = ["CORRESPONDENCE_PRESETS", "HOMOGRAPHY_PRESETS", "POSE_PRESETS", "with_resize"]

_SWEEP_PX = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
_SWEEP_NOTE = (
    "the threshold with the best AUC over the whole data set is reported: optimistic, because it "
    "is chosen on the pairs that it is scored on"
)
_OPENCV_NOTE = "cv2.findEssentialMat (RANSAC) on rays, threshold over the mean focal"
_SHORT_480 = ResizeRule("short", 480)


def with_resize(protocol: Protocol, rule: ResizeRule, name: str | None = None) -> Protocol:
    """The same protocol with another resize rule, and another name where one is given."""
    return dataclasses.replace(protocol, resize=rule, name=name or protocol.name)


def _by_name(*protocols: Protocol) -> dict[str, Protocol]:
    return {protocol.name: protocol for protocol in protocols}


POSE_PRESETS: dict[str, Protocol] = _by_name(
    Protocol(
        name="ours",
        estimator=EstimatorOptions("poselib", (1.0,)),
        is_headline=True,
        note="PoseLib LO-RANSAC at 1 px, the same for every data set and method",
    ),
    Protocol(
        name="ours-progressive",
        estimator=EstimatorOptions("poselib", (1.0,), progressive=True),
        is_headline=True,
        note="as ours, but samples come from each method's most confident matches first (PROSAC)",
    ),
    Protocol(
        name="ours-planes",
        estimator=EstimatorOptions("poselib", (1.0,), settles_planes=True),
        is_headline=True,
        note=(
            "as ours, but the pose of matches on one plane comes from their homography, and where "
            "it leaves two open, the depth of methods that predict it decides: what "
            "PairResult.relative_pose does"
        ),
    ),
    Protocol(
        name="loftr",
        estimator=EstimatorOptions(
            "opencv-ransac",
            (0.5,),
            confidence=0.99999,
            max_iterations=1000,
            mean_focal="loftr",
        ),
        note=f"{_OPENCV_NOTE} (fx0, fy1, fx0, fy1), as that evaluation has it",
    ),
    Protocol(
        name="roma",
        estimator=EstimatorOptions(
            "opencv-ransac",
            (0.5,),
            confidence=0.99999,
            max_iterations=1000,
            repeats=5,
            max_matches=5000,
        ),
        note=(
            f"{_OPENCV_NOTE}; five draws of at most 5000 matches, five errors a pair (the original "
            "counts the last of them twice; that is left out)"
        ),
    ),
    Protocol(
        name="glue-factory",
        estimator=EstimatorOptions("poselib", _SWEEP_PX),
        note=_SWEEP_NOTE,
    ),
    Protocol(
        name="glue-factory-opencv",
        estimator=EstimatorOptions(
            "opencv-ransac", _SWEEP_PX, confidence=0.99999, max_iterations=1000
        ),
        note=f"{_OPENCV_NOTE}; {_SWEEP_NOTE}",
    ),
    Protocol(
        name="xfeat",
        resize=ResizeRule("long", 1200, only_shrink=True),
        # PoseLib takes 1000 iterations at least, so that the confidence never ends a search early.
        estimator=EstimatorOptions("poselib", (2.5,), max_iterations=1000),
        note="PoseLib LO-RANSAC at 2.5 px, exactly 1000 iterations",
    ),
)
"""Relative pose of calibrated pairs (and the estimator of every task that needs one), by name."""

HOMOGRAPHY_PRESETS: dict[str, Protocol] = _by_name(
    Protocol(
        name="ours",
        resize=_SHORT_480,
        # Of 0.5 to 4 px the best for SIFT on the development pairs (homogr, homography_seq).
        estimator=EstimatorOptions("poselib", (2.0,)),
        auc_thresholds=(1.0, 3.0, 5.0),
        is_headline=True,
        note="PoseLib LO-RANSAC at 2 px; mean corner error in pixels at a short side of 480",
    ),
    Protocol(
        name="glue-factory",
        resize=_SHORT_480,
        estimator=EstimatorOptions("poselib", _SWEEP_PX),
        auc_thresholds=(1.0, 3.0, 5.0),
        note=_SWEEP_NOTE,
    ),
    Protocol(
        name="loftr",
        # At a short side of 480 a pixel is min(w, h) / 480 stored pixels: threshold and error
        # count as in that evaluation, whatever the size of the photographs.
        resize=_SHORT_480,
        estimator=EstimatorOptions(
            "opencv-ransac", (3.0,), confidence=0.99999, max_iterations=2000
        ),
        auc_thresholds=(3.0, 5.0, 10.0),
        note="cv2.findHomography (RANSAC, 3 px); pixels of min(w, h) / 480 stored pixels",
    ),
    Protocol(
        name="evd",
        estimator=EstimatorOptions("opencv-magsac", (1.0,), confidence=0.999),
        auc_thresholds=tuple(float(t) for t in np.geomspace(1.0, 20.0, 10)),
        note="mAA: mean share of pairs within ten thresholds, log-spaced over 1-20 px",
    ),
)
"""Homographies, by name."""

CORRESPONDENCE_PRESETS: dict[str, Protocol] = _by_name(
    Protocol(
        name="wxbs",
        estimator=EstimatorOptions(
            "opencv-magsac", (0.25,), confidence=0.999, max_iterations=100_000
        ),
        auc_thresholds=(10.0,),
        is_headline=True,
        note="fundamental matrix by MAGSAC++ at 0.25 px; recall of hand-marked correspondences",
    ),
)
"""Hand-marked correspondences, by name."""
