"""The losses against numbers computed with the released systems."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.outputs import DenseOutput
from matcher.training.losses import (
    Correspondences,
    LossOptions,
    MatchConfidenceMode,
    MatchingLossOptions,
    PointmapLossOptions,
    PointmapTargets,
    SoftmaxMode,
    info_nce,
    masked_mean,
    masked_patch_mse,
    pointmap_errors,
    total_loss,
)

DATA = Path(__file__).parent / "data"
RELATIVE = 1e-5
RELEASED_MATCHING = MatchingLossOptions(
    temperature=0.05,
    duplicate_radius_px=None,
    padding_is_negative=True,
    probability_floor=1e-8,
)
RELEASED_LOSS = LossOptions(PointmapLossOptions(), RELEASED_MATCHING)
JOINT_MEAN = PointmapLossOptions("mean_distance", sky_error=0.0)
# Average precision is not offered as a loss.
NOT_OFFERED = {"ap_torch", "ap_sklearn"}

POINTMAP_CASES: dict[str, PointmapLossOptions] = {
    "dust3r_regr3d": JOINT_MEAN,
    "dust3r_regr3d_gtscale": replace(JOINT_MEAN, keep_target_scale=True),
    "dust3r_ssi": PointmapLossOptions("shift_and_scale", keep_target_scale=True, sky_error=0.0),
    "dust3r_ssi_nogt": PointmapLossOptions("shift_and_scale", sky_error=0.0),
    "mast3r_ssi": PointmapLossOptions("shift_and_scale", keep_target_scale=True, sky_error=0.0),
    "mast3r_regr3d_sky0": PointmapLossOptions(sky_error=0.0),
    "mast3r_regr3d_sky0_gt": PointmapLossOptions(keep_target_scale=True, sky_error=0.0),
    "mast3r_regr3d_pix": PointmapLossOptions(),
    "mast3r_regr3d_pix_norm": PointmapLossOptions("mean_distance"),
    "mast3r_regr3d_pix_log": PointmapLossOptions(log_space=True),
}
CONFIDENCE_CASES = {"dust3r_conf": JOINT_MEAN, "mast3r_conf": PointmapLossOptions()}
INFO_NCE_CASES: dict[str, tuple[SoftmaxMode, float]] = {
    "infonce_all": ("all", 0.05),
    "infonce_proper": ("proper", 0.05),
    "infonce_dual": ("dual", 0.05),
    "infonce_proper_default_t": ("proper", 0.07),
}
MATCHING_CONFIDENCE_CASES: dict[str, MatchConfidenceMode] = {
    "confmatching_mean": "mean",
    "confmatching_prod": "prod",
}


@cache
def golden() -> dict[str, Tensor]:
    with np.load(DATA / "func_losses.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@dataclass(frozen=True)
class Batch:
    output0: DenseOutput
    output1: DenseOutput
    targets: PointmapTargets
    correspondences: Correspondences


def to_camera0(points: Tensor) -> Tensor:
    camera0_from_world = torch.linalg.inv(golden()["gt1_camera_pose"])
    rotated = torch.einsum("bij,bhwj->bhwi", camera0_from_world[:, :3, :3], points)
    moved: Tensor = rotated + camera0_from_world[:, None, None, :3, 3]
    return moved


def batch() -> Batch:
    arrays = golden()

    def leaf(name: str) -> Tensor:
        return arrays[name].clone().requires_grad_()

    return Batch(
        DenseOutput(
            *(leaf(f"pred1_{name}") for name in ("pts3d", "conf", "desc", "desc_conf")),
        ),
        DenseOutput(
            *(
                leaf(f"pred2_{name}")
                for name in ("pts3d_in_other_view", "conf", "desc", "desc_conf")
            ),
        ),
        PointmapTargets(
            to_camera0(arrays["gt1_pts3d"]),
            to_camera0(arrays["gt2_pts3d"]),
            arrays["gt1_valid_mask"],
            arrays["gt2_valid_mask"],
            arrays["gt1_is_metric_scale"],
            arrays["gt1_sky_mask"],
            arrays["gt2_sky_mask"],
        ),
        Correspondences(arrays["gt1_corres"], arrays["gt2_corres"], arrays["gt1_valid_corres"]),
    )


def assert_value(actual: Tensor, case: str) -> None:
    assert actual.item() == pytest.approx(golden()[f"{case}__value"].item(), rel=RELATIVE)


def assert_gradients(pair: Batch, case: str) -> None:
    names = ("points", "confidence", "descriptors", "descriptor_confidence")
    golden_names = ("pts3d", "conf", "desc", "desc_conf")
    compared = 0
    for view, output in ((1, pair.output0), (2, pair.output1)):
        for name, golden_name in zip(names, golden_names, strict=True):
            if view == 2 and name == "points":
                golden_name = "pts3d_in_other_view"
            expected = golden().get(f"{case}__grad{view}_{golden_name}")
            actual = getattr(output, name).grad
            if expected is None:
                assert actual is None or not actual.any()
                continue
            largest = expected.abs().max().item()
            torch.testing.assert_close(actual, expected, rtol=RELATIVE, atol=RELATIVE * largest)
            compared += 1
    assert compared >= 4


def test_every_released_case_is_covered_or_declined() -> None:
    released = set(json.loads((DATA / "func_losses.expr.json").read_text()))
    covered = {*POINTMAP_CASES, *CONFIDENCE_CASES, *INFO_NCE_CASES, *MATCHING_CONFIDENCE_CASES}
    assert released == covered | NOT_OFFERED | {"train_total"}


@pytest.mark.parametrize("case", POINTMAP_CASES)
def test_pointmap_regression(case: str) -> None:
    pair = batch()
    errors = pointmap_errors(pair.output0, pair.output1, pair.targets, POINTMAP_CASES[case])
    mean0 = masked_mean(errors.error0, errors.counted0)
    mean1 = masked_mean(errors.error1, errors.counted1)
    assert_value(mean0 + mean1, case)
    if f"{case}__l1" not in golden():
        return
    for view, error, counted in (
        (1, errors.error0, errors.counted0),
        (2, errors.error1, errors.counted1),
    ):
        assert torch.equal(counted, golden()[f"{case}__mask{view}"])
        expected = golden()[f"{case}__l{view}"]
        torch.testing.assert_close(error[counted], expected, rtol=RELATIVE, atol=1e-6)


@pytest.mark.parametrize("case", CONFIDENCE_CASES)
def test_confidence_weighted_regression(case: str) -> None:
    pair = batch()
    terms = total_loss(
        pair.output0, pair.output1, pair.targets, None, LossOptions(CONFIDENCE_CASES[case])
    )
    assert_value(terms.total, case)
    if f"{case}__grad1_pts3d" in golden():
        torch.autograd.backward(terms.total)
        assert_gradients(pair, case)


@pytest.mark.parametrize("mode", ["all", "proper", "dual"])
def test_info_nce_of_single_correspondences(mode: SoftmaxMode) -> None:
    arrays = golden()
    loss = info_nce(
        arrays["raw_a"],
        arrays["raw_b"],
        arrays["raw_valid"],
        0.05,
        mode,
        padding_is_negative=True,
        probability_floor=1e-8,
    )
    expected = arrays[f"raw_infonce_{mode}"]
    torch.testing.assert_close(loss[arrays["raw_valid"]], expected, rtol=RELATIVE, atol=0)


@pytest.mark.parametrize("case", INFO_NCE_CASES)
def test_info_nce(case: str) -> None:
    mode, temperature = INFO_NCE_CASES[case]
    pair = batch()
    options = replace(RELEASED_MATCHING, mode=mode, temperature=temperature)
    terms = total_loss(
        pair.output0,
        pair.output1,
        pair.targets,
        pair.correspondences,
        LossOptions(matching=options),
    )
    assert_value(terms.matching_error, case)


@pytest.mark.parametrize("case", MATCHING_CONFIDENCE_CASES)
def test_confidence_weighted_matching(case: str) -> None:
    pair = batch()
    matching = replace(RELEASED_MATCHING, confidence=MATCHING_CONFIDENCE_CASES[case])
    options = LossOptions(matching=matching, pointmap_weight=0.0, matching_weight=1.0)
    terms = total_loss(pair.output0, pair.output1, pair.targets, pair.correspondences, options)
    assert_value(terms.matching, case)
    if f"{case}__grad1_desc" in golden():
        torch.autograd.backward(terms.total)
        assert_gradients(pair, case)


def test_whole_training_loss() -> None:
    pair = batch()
    terms = total_loss(
        pair.output0, pair.output1, pair.targets, pair.correspondences, RELEASED_LOSS
    )
    assert_value(terms.total, "train_total")
    torch.autograd.backward(terms.total)
    assert_gradients(pair, "train_total")


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_masked_patches(normalize: bool, masked: bool) -> None:
    with np.load(DATA / "masked_patch_losses.npz") as arrays:
        prediction, target, mask = (
            torch.from_numpy(arrays[name]) for name in ("out", "target", "mask")
        )
        expected = float(arrays[f"loss_norm{normalize:d}_masked{masked:d}"][0])
    loss = masked_patch_mse(prediction, target, mask if masked else None, normalize)
    assert loss.item() == pytest.approx(expected, rel=RELATIVE)
