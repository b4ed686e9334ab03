from __future__ import annotations

import json

import pytest

from benchmarks.core.protocols import EstimatorOptions, ResizeRule
from benchmarks.protocols import (
    CORRESPONDENCE_PRESETS,
    HOMOGRAPHY_PRESETS,
    POSE_PRESETS,
    with_resize,
)
from matcher.errors import InputError
from matcher.structures import ImageSize

ALL = [
    *POSE_PRESETS.items(),
    *HOMOGRAPHY_PRESETS.items(),
    *CORRESPONDENCE_PRESETS.items(),
]


def test_the_named_presets_are_there():
    assert {"ours", "loftr", "roma", "glue-factory", "xfeat"} <= set(POSE_PRESETS)
    assert {"ours", "loftr", "glue-factory", "evd"} <= set(HOMOGRAPHY_PRESETS)
    assert set(CORRESPONDENCE_PRESETS) == {"wxbs"}


@pytest.mark.parametrize(("name", "protocol"), ALL)
def test_presets_carry_their_name_and_survive_json(name, protocol):
    assert protocol.name == name
    assert protocol.note
    assert json.loads(json.dumps(protocol.to_dict()))["estimator"]["seed"] == 0


@pytest.mark.parametrize(("name", "protocol"), ALL)
def test_a_headline_never_chooses_its_threshold(name, protocol):
    if protocol.is_headline:
        assert len(protocol.estimator.thresholds) == 1
    else:
        assert name != "ours"
    if len(protocol.estimator.thresholds) > 1:
        assert "optimistic" in protocol.note


def test_pose_presets_are_those_of_their_evaluations():
    assert POSE_PRESETS["ours"].estimator == EstimatorOptions("poselib", (1.0,))
    assert POSE_PRESETS["ours"].resize == ResizeRule("none")
    loftr = POSE_PRESETS["loftr"].estimator
    assert (loftr.estimator, loftr.thresholds) == ("opencv-ransac", (0.5,))
    assert (loftr.confidence, loftr.mean_focal) == (0.99999, "loftr")
    roma = POSE_PRESETS["roma"]
    assert (roma.estimator.repeats, roma.estimator.max_matches) == (5, 5000)
    assert "left out" in roma.note
    assert POSE_PRESETS["glue-factory"].estimator.thresholds == (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
    xfeat = POSE_PRESETS["xfeat"]
    assert (xfeat.estimator.thresholds, xfeat.estimator.max_iterations) == ((2.5,), 1000)
    assert xfeat.resize.apply(ImageSize(1600, 800)) == ImageSize(1200, 600)
    assert xfeat.resize.apply(ImageSize(480, 640)) == ImageSize(480, 640)


def test_homography_and_correspondence_presets():
    assert HOMOGRAPHY_PRESETS["glue-factory"].auc_thresholds == (1, 3, 5)
    assert HOMOGRAPHY_PRESETS["loftr"].auc_thresholds == (3, 5, 10)
    # A pixel of the resized photograph is min(w, h) / 480 stored ones.
    assert HOMOGRAPHY_PRESETS["loftr"].resize.apply(ImageSize(1920, 960)) == ImageSize(960, 480)
    evd = HOMOGRAPHY_PRESETS["evd"].auc_thresholds
    assert (len(evd), evd[0], evd[-1]) == (10, 1.0, pytest.approx(20.0))
    assert evd[1] / evd[0] == pytest.approx(evd[9] / evd[8])
    wxbs = CORRESPONDENCE_PRESETS["wxbs"].estimator
    assert wxbs.thresholds == (0.25,)
    assert (wxbs.confidence, wxbs.max_iterations) == (0.999, 100_000)


def test_with_resize_changes_nothing_else():
    rule = ResizeRule("exact", 640, 480)
    changed = with_resize(POSE_PRESETS["loftr"], rule)
    assert changed.resize == rule
    assert changed.name == "loftr"
    assert changed.estimator == POSE_PRESETS["loftr"].estimator
    assert with_resize(POSE_PRESETS["loftr"], rule, "loftr-640").name == "loftr-640"
    assert POSE_PRESETS["loftr"].resize == ResizeRule("none")


def test_a_broken_protocol_is_refused():
    with pytest.raises(InputError, match="thresholds"):
        EstimatorOptions(thresholds=())
    with pytest.raises(InputError, match="estimator"):
        EstimatorOptions(estimator="magic")
