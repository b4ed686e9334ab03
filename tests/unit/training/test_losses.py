from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from heads.outputs import DenseOutput
from matcher.errors import InputError
from matcher.training.losses import (
    Correspondences,
    LossOptions,
    LossValues,
    MatchingLossOptions,
    PointmapLossOptions,
    PointmapTargets,
    SoftmaxMode,
    confidence_weighted,
    confidence_weighted_matching,
    distance_errors,
    gather_pixels,
    info_nce,
    masked_mean,
    masked_patch_mse,
    mean_distance,
    near_duplicates,
    pointmap_errors,
    ray_errors,
    total_loss,
)

MODES: tuple[SoftmaxMode, ...] = ("proper", "all", "dual")


def along_z(*depths: float) -> Tensor:
    """A (1, 1, K, 3) pointmap of points on the optical axis."""
    points = torch.zeros(1, 1, len(depths), 3)
    points[..., 2] = torch.tensor(depths)
    return points


def output(points: Tensor, confidence: float = 1.0) -> DenseOutput:
    return DenseOutput(points, torch.full(points.shape[:3], confidence))


def targets(points0: Tensor, points1: Tensor, is_metric: bool = False) -> PointmapTargets:
    everywhere0, everywhere1 = (
        torch.ones(points.shape[:3], dtype=torch.bool) for points in (points0, points1)
    )
    return PointmapTargets(points0, points1, everywhere0, everywhere1, torch.tensor([is_metric]))


def unit(*rows: tuple[float, ...]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor([rows]), dim=-1)


def random_batch(
    pairs: int = 2, size: int = 6, matches: int = 5, seed: int = 0
) -> tuple[DenseOutput, DenseOutput, PointmapTargets, Correspondences]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def view() -> DenseOutput:
        return DenseOutput(
            normal(pairs, size, size, 3).requires_grad_(),
            (1 + normal(pairs, size, size).exp()).requires_grad_(),
            torch.nn.functional.normalize(normal(pairs, size, size, 4), dim=-1).requires_grad_(),
            normal(pairs, size, size).exp().requires_grad_(),
        )

    def pixels() -> Tensor:
        return torch.randint(size, (pairs, matches, 2), generator=generator)

    points = [normal(pairs, size, size, 3) for _ in range(2)]
    valid = [torch.rand(pairs, size, size, generator=generator) < 0.7 for _ in range(2)]
    is_metric = torch.arange(pairs) % 2 == 0
    truth = PointmapTargets(points[0], points[1], valid[0], valid[1], is_metric)
    matched = torch.ones(pairs, matches, dtype=torch.bool)
    return view(), view(), truth, Correspondences(pixels(), pixels(), matched)


def leaves(*outputs: DenseOutput) -> list[Tensor]:
    maps: list[Tensor] = []
    for view in outputs:
        assert view.descriptors is not None
        assert view.descriptor_confidence is not None
        maps += [view.points, view.confidence, view.descriptors, view.descriptor_confidence]
    return maps


class TestPointmaps:
    def test_mean_distance_is_joint_over_valid_points(self) -> None:
        valid0 = torch.tensor([[[True, False]]])
        valid1 = torch.tensor([[[True, True]]])
        distance = mean_distance(along_z(1, 100), valid0, along_z(2, 6), valid1)
        assert distance.tolist() == [3.0]

    def test_mean_distance_without_a_valid_point_is_zero(self) -> None:
        nowhere = torch.zeros(1, 1, 2, dtype=torch.bool)
        points = along_z(math.nan, math.inf).requires_grad_()
        distance = mean_distance(points, nowhere, points, nowhere)
        assert distance.tolist() == [0.0]
        torch.autograd.backward(distance.sum())
        assert points.grad is not None
        assert not points.grad.any()

    def test_scale_does_not_count_for_pairs_that_are_not_metric(self) -> None:
        truth = targets(along_z(1, 2), along_z(3, 4))
        errors = pointmap_errors(output(along_z(7, 14)), output(along_z(21, 28)), truth)
        torch.testing.assert_close(errors.error0, torch.zeros(1, 1, 2))
        torch.testing.assert_close(errors.error1, torch.zeros(1, 1, 2))

    def test_metric_pair_is_divided_by_the_true_distance(self) -> None:
        # True mean distance 2.5; the prediction is 7.5 times too far at the first pixel.
        truth = targets(along_z(1, 2), along_z(3, 4), is_metric=True)
        errors = pointmap_errors(output(along_z(8.5, 2)), output(along_z(3, 5)), truth)
        torch.testing.assert_close(errors.error0, torch.tensor([[[3.0, 0.0]]]))
        torch.testing.assert_close(errors.error1, torch.tensor([[[0.0, 0.4]]]))

    def test_each_is_divided_by_its_own_distance(self) -> None:
        # Predicted mean 2, true mean 4.
        truth = targets(along_z(2, 4), along_z(6, 4))
        errors = pointmap_errors(output(along_z(2, 2)), output(along_z(1, 3)), truth)
        torch.testing.assert_close(errors.error0, torch.tensor([[[0.5, 0.0]]]))
        torch.testing.assert_close(errors.error1, torch.tensor([[[1.0, 0.5]]]))

    def test_log_space(self) -> None:
        truth = targets(along_z(1), along_z(1), is_metric=True)
        options = PointmapLossOptions(log_space=True)
        errors = pointmap_errors(output(along_z(3)), output(along_z(0)), truth, options)
        assert errors.error0.item() == pytest.approx(math.log(4) - math.log(2))
        assert errors.error1.item() == pytest.approx(math.log(2))

    def test_depth_offset_and_scale_do_not_count_without_them(self) -> None:
        points = torch.randn(1, 3, 5, 3, generator=torch.Generator().manual_seed(1))
        truth = targets(points, points + 1)
        offset = torch.tensor([0.0, 0.0, 9.0])
        predicted0, predicted1 = output(points * 3 + offset), output((points + 1) * 3 + offset)
        options = PointmapLossOptions("shift_and_scale")
        errors = pointmap_errors(predicted0, predicted1, truth, options)
        assert max(errors.error0.max().item(), errors.error1.max().item()) < 1e-5

    def test_sky_has_a_constant_error_and_only_where_no_point_is_known(self) -> None:
        truth = PointmapTargets(
            along_z(1, 1, math.nan),
            along_z(1, 1, 1),
            torch.tensor([[[True, True, False]]]),
            torch.tensor([[[True, True, False]]]),
            torch.tensor([False]),
            sky0=torch.tensor([[[False, True, True]]]),
        )
        errors = pointmap_errors(output(along_z(1, 1, 1)), output(along_z(1, 1, 1)), truth)
        assert errors.error0.tolist() == [[[0.0, 0.0, 2.0]]]
        assert errors.counted0.tolist() == [[[True, True, True]]]
        assert errors.error1.tolist() == [[[0.0, 0.0, 0.0]]]
        assert errors.counted1.tolist() == [[[True, True, False]]]

    def test_views_of_different_sizes(self) -> None:
        truth = targets(torch.ones(1, 2, 3, 3), torch.ones(1, 4, 2, 3))
        predicted = output(torch.ones(1, 2, 3, 3)), output(torch.full((1, 4, 2, 3), 3.0))
        errors = pointmap_errors(*predicted, truth)
        # Mean distance of the prediction: sqrt(3) (6 + 24) / 14, of the truth: sqrt(3).
        torch.testing.assert_close(errors.error0, torch.full((1, 2, 3), 1 - 14 / 30))
        torch.testing.assert_close(errors.error1, torch.full((1, 4, 2), 3 * 14 / 30 - 1))

    @pytest.mark.parametrize(
        "normalization", ["mean_distance_unless_metric", "mean_distance", "shift_and_scale"]
    )
    def test_gradients_are_those_of_finite_differences(self, normalization: str) -> None:
        generator = torch.Generator().manual_seed(2)
        shape = (2, 2, 3, 3)
        points = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]
        valid = torch.rand(shape[:3], generator=generator) < 0.8
        truth = PointmapTargets(points[2], points[3], valid, ~valid, torch.tensor([True, False]))
        options = PointmapLossOptions(normalization)  # type: ignore[arg-type]

        def loss(points0: Tensor, points1: Tensor) -> Tensor:
            errors = pointmap_errors(output(points0), output(points1), truth, options)
            return errors.error0.sum() + errors.error1.sum()

        predicted = [value.clone().requires_grad_() for value in points[:2]]
        assert torch.autograd.gradcheck(loss, predicted)

    def test_wrong_shapes_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"points0: expected \(B, H, W, 3\)"):
            targets(torch.zeros(1, 2, 2, 4), along_z(1))
        truth = targets(along_z(1, 2), along_z(1))
        with pytest.raises(InputError, match=r"output0.points: expected shape \(1, 1, 2, 3\)"):
            pointmap_errors(output(along_z(1)), output(along_z(1)), truth)
        mask = torch.ones(1, 1, 1)
        with pytest.raises(InputError, match="valid0: expected bool"):
            PointmapTargets(along_z(1), along_z(1), mask, mask.bool(), torch.tensor([True]))


class TestRays:
    """A grid of points of one camera, and the same points under another lens."""

    @staticmethod
    def points(focal: float, scale: float = 1.0) -> Tensor:
        rows, columns = torch.meshgrid(torch.arange(-4.0, 5), torch.arange(-4.0, 5), indexing="ij")
        depth = scale * (2 + 0.1 * columns + 0.2 * rows)
        return torch.stack([columns * depth / focal, rows * depth / focal, depth], -1)[None]

    def test_distance_along_a_ray_does_not_count(self) -> None:
        truth = targets(self.points(5.0), self.points(5.0))
        errors = ray_errors(output(self.points(5.0, scale=3.0)), truth)
        torch.testing.assert_close(errors, torch.zeros(1, 9, 9))

    def test_the_lens_does(self) -> None:
        truth = targets(self.points(4.0), self.points(4.0))
        errors = ray_errors(output(self.points(8.0)), truth)
        # The pixel 4 columns off the axis: rays at 45 degrees and at atan(1/2).
        expected = 2 * math.sin((math.pi / 4 - math.atan(0.5)) / 2)
        assert errors[0, 4, 8].item() == pytest.approx(expected, abs=1e-6)
        assert errors[0, 4, 4].item() == 0.0

    def test_the_gradient_shortens_a_focal_that_is_too_long(self) -> None:
        truth = targets(self.points(4.0), self.points(4.0))
        factor = torch.ones((), requires_grad=True)
        stretch = torch.stack([factor, factor, torch.ones(())])
        torch.autograd.backward(ray_errors(output(self.points(6.0) * stretch), truth).sum())
        assert factor.grad is not None
        assert factor.grad < 0  # wider rays, a shorter focal

    def test_what_is_not_known_reaches_neither_value_nor_gradient(self) -> None:
        broken = self.points(4.0)
        broken[:, :, :4] = math.nan
        known = broken.isfinite().all(-1)
        truth = PointmapTargets(broken, broken, known, known, torch.tensor([False]))
        predicted = self.points(6.0).requires_grad_()
        errors = ray_errors(output(predicted), truth)
        torch.autograd.backward(errors.sum())
        assert predicted.grad is not None
        assert not errors[~known].any()
        assert errors[known].any()
        assert not predicted.grad[~known].any()
        assert predicted.grad.isfinite().all()

    def test_they_enter_the_loss_with_their_weight(self) -> None:
        predicted0, predicted1, truth, matches = random_batch()
        plain = total_loss(predicted0, predicted1, truth, matches)
        options = LossOptions(PointmapLossOptions(ray_weight=3.0))
        with_rays = total_loss(predicted0, predicted1, truth, matches, options)
        rays = ray_errors(predicted0, truth)[truth.valid0].mean()
        torch.testing.assert_close(with_rays.pointmap, plain.pointmap + 3 * rays.detach())
        torch.testing.assert_close(with_rays.total, plain.total + 3 * rays)
        assert with_rays.values().pointmap_error == plain.values().pointmap_error


class TestDistances:
    def test_a_factor_for_the_pair_costs_nothing_and_one_for_a_point_its_log(self) -> None:
        true0, true1 = along_z(1.0, 2.0, 4.0), along_z(3.0, 5.0, 100.0)
        predicted0, predicted1 = 7 * true0, 7 * true1
        predicted1[..., 1, :] *= 1.5
        errors0, errors1 = distance_errors(
            output(predicted0), output(predicted1), targets(true0, true1)
        )
        torch.testing.assert_close(errors0, torch.zeros(1, 1, 3), atol=1e-6, rtol=0)
        torch.testing.assert_close(errors1, torch.tensor([[[0.0, math.log(1.5), 0.0]]]))

    def test_near_and_far_count_alike(self) -> None:
        true = along_z(0.1, 1.0, 1.0, 1.0, 50.0)
        for index in (0, 4):
            off = true.clone()
            off[..., index, :] *= 1.2
            error, _ = distance_errors(output(off), output(true), targets(true, true))
            assert float(error.sum()) == pytest.approx(math.log(1.2), abs=1e-5)

    def test_what_is_not_known_reaches_neither_value_nor_gradient(self) -> None:
        true = along_z(1.0, 2.0, math.nan, 0.0)
        known = torch.tensor([[[True, True, False, True]]])
        truth = PointmapTargets(true, true, known, known, torch.tensor([False]))
        predicted = along_z(1.0, 3.0, 5.0, 0.0).requires_grad_()
        errors = distance_errors(output(predicted), output(predicted), truth)
        torch.autograd.backward(errors[0].sum() + errors[1].sum())
        assert predicted.grad is not None
        assert predicted.grad.isfinite().all()
        assert not predicted.grad[..., 2:, :].any()
        assert not errors[0][..., 2:].any()

    def test_they_enter_the_loss_with_their_weight(self) -> None:
        predicted0, predicted1, truth, matches = random_batch()
        plain = total_loss(predicted0, predicted1, truth, matches)
        options = LossOptions(PointmapLossOptions(distance_weight=2.0))
        more = total_loss(predicted0, predicted1, truth, matches, options)
        errors0, errors1 = distance_errors(predicted0, predicted1, truth)
        far = errors0[truth.valid0].mean() + errors1[truth.valid1].mean()
        torch.testing.assert_close(more.total, plain.total + 2 * far)


class TestConfidence:
    def test_value_and_optimum(self) -> None:
        confidence = torch.tensor([0.5, 2.0], requires_grad=True)
        loss = confidence_weighted(torch.tensor([0.4, 0.4]), confidence, 0.2)
        expected = [0.2 - 0.2 * math.log(0.5), 0.8 - 0.2 * math.log(2)]
        torch.testing.assert_close(loss, torch.tensor(expected))
        torch.autograd.backward(loss.sum())
        # The best confidence is alpha / error: nothing pulls there.
        torch.testing.assert_close(confidence.grad, torch.tensor([0.0, 0.3]))

    def test_zero_confidence_stays_finite(self) -> None:
        loss = confidence_weighted(torch.ones(1), torch.zeros(1), 1.0)
        assert loss.item() == pytest.approx(-math.log(1e-10))

    def test_matching_uses_mean_or_product(self) -> None:
        loss, valid = torch.tensor([[2.0, math.nan]]), torch.tensor([[True, False]])
        sure0, sure1 = torch.tensor([[1.0, math.nan]]), torch.tensor([[3.0, 0.0]])
        mean = confidence_weighted_matching(loss, sure0, sure1, valid)
        product = confidence_weighted_matching(loss, sure0, sure1, valid, 10.0, "prod")
        torch.testing.assert_close(mean, torch.tensor([[4 - 10 * math.log(2), 0.0]]))
        torch.testing.assert_close(product, torch.tensor([[6 - 10 * math.log(3), 0.0]]))


class TestInfoNce:
    def test_two_orthogonal_matches(self) -> None:
        descriptors = unit((1.0, 0.0), (0.0, 1.0))
        valid = torch.ones(1, 2, dtype=torch.bool)
        rows = math.log1p(math.exp(-2.0))  # both in rows and in columns
        for mode, expected in (("proper", 2 * rows), ("dual", 2 * rows), ("all", None)):
            loss = info_nce(descriptors, descriptors, valid, 0.5, mode)  # type: ignore[arg-type]
            if expected is None:
                expected = math.log(2 + 2 * math.exp(-2.0))
            assert loss[0].tolist() == pytest.approx([expected] * 2)

    @pytest.mark.parametrize("mode", MODES)
    def test_padding_counts_for_nothing_unless_asked(self, mode: SoftmaxMode) -> None:
        generator = torch.Generator().manual_seed(0)
        rows0, rows1 = (torch.randn(1, 4, 3, generator=generator) for _ in range(2))
        garbage = torch.full((1, 2, 3), math.nan)
        padded0 = torch.cat([rows0, garbage], 1).requires_grad_()
        padded1 = torch.cat([rows1, garbage], 1).requires_grad_()
        valid = torch.tensor([[True] * 4 + [False] * 2])
        extra = torch.randn(1, 3, 3, generator=generator)
        loss = info_nce(padded0, padded1, valid, mode=mode, negatives0=extra, negatives1=extra)
        alone = info_nce(rows0, rows1, valid[:, :4], mode=mode, negatives0=extra, negatives1=extra)
        torch.testing.assert_close(loss[:, :4], alone)
        assert loss[0, 4:].tolist() == [0.0, 0.0]
        torch.autograd.backward(loss.sum())
        assert padded0.grad is not None
        assert padded0.grad.isfinite().all()
        assert not padded0.grad[:, 4:].any()

    def test_padding_as_negatives_equals_extra_negatives(self) -> None:
        generator = torch.Generator().manual_seed(3)
        rows0, rows1 = (torch.randn(1, 5, 3, generator=generator) for _ in range(2))
        valid = torch.tensor([[True] * 3 + [False] * 2])
        padded = info_nce(rows0, rows1, valid, padding_is_negative=True)
        extra = info_nce(
            rows0[:, :3],
            rows1[:, :3],
            valid[:, :3],
            negatives0=rows0[:, 3:],
            negatives1=rows1[:, 3:],
        )
        torch.testing.assert_close(padded[:, :3], extra)

    @pytest.mark.parametrize("mode", MODES)
    def test_negatives_marked_as_padding_count_for_nothing(self, mode: SoftmaxMode) -> None:
        generator = torch.Generator().manual_seed(4)
        rows, negatives = (torch.randn(1, 3, 3, generator=generator) for _ in range(2))
        negatives[0, 2] = math.nan
        valid = torch.ones(1, 3, dtype=torch.bool)
        some = info_nce(
            rows,
            rows,
            valid,
            mode=mode,
            negatives0=negatives,
            negatives1=negatives,
            negatives0_valid=torch.tensor([[True, True, False]]),
            negatives1_valid=torch.zeros(1, 3, dtype=torch.bool),
        )
        torch.testing.assert_close(
            some, info_nce(rows, rows, valid, mode=mode, negatives0=negatives[:, :2])
        )

    def test_ignored_entries_are_no_negatives_but_the_positive_stays(self) -> None:
        descriptors = unit((1.0, 0.0), (1.0, 0.0), (0.0, 1.0))
        valid = torch.ones(1, 3, dtype=torch.bool)
        everything = torch.ones(1, 3, 3, dtype=torch.bool)
        torch.testing.assert_close(
            info_nce(descriptors, descriptors, valid, ignore=everything), torch.zeros(1, 3)
        )
        twins = near_duplicates(torch.tensor([[[4, 4], [4, 5], [9, 4]]]), 1.0)
        loss = info_nce(descriptors, descriptors, valid, 1.0, ignore=twins)
        alone = 2 * math.log1p(math.exp(-1.0))
        assert loss[0].tolist() == pytest.approx([alone, alone, 2 * math.log1p(2 / math.e)])

    def test_low_temperature_neither_overflows_nor_loses_the_gradient(self) -> None:
        descriptors0 = unit((1.0, 0.0), (-1.0, 0.0)).requires_grad_()
        valid = torch.ones(1, 2, dtype=torch.bool)
        loss = info_nce(descriptors0, -descriptors0.detach(), valid, 1e-3)
        assert loss[0].tolist() == pytest.approx([4000.0, 4000.0])
        torch.autograd.backward(loss.sum())
        assert descriptors0.grad is not None
        assert descriptors0.grad.abs().max() > 100

    def test_floor_bounds_the_loss(self) -> None:
        descriptors = unit((1.0, 0.0), (-1.0, 0.0))
        valid = torch.ones(1, 2, dtype=torch.bool)
        for mode, factors in (("proper", 2), ("dual", 1)):
            loss = info_nce(
                descriptors,
                -descriptors,
                valid,
                1e-2,
                mode,  # type: ignore[arg-type]
                probability_floor=1e-8,
            )
            assert loss[0].tolist() == pytest.approx([factors * 8 * math.log(10)] * 2)

    def test_learned_temperature_gets_a_gradient(self) -> None:
        descriptors = unit((1.0, 0.0), (0.0, 1.0))
        valid = torch.ones(1, 2, dtype=torch.bool)
        temperature = torch.tensor(0.5, requires_grad=True)
        torch.autograd.backward(info_nce(descriptors, descriptors, valid, temperature).sum())
        # d/dT of 4 log(1 + exp(-1/T)) at T = 1/2.
        assert temperature.grad is not None
        assert temperature.grad.item() == pytest.approx(4 * 4 / (1 + math.exp(2.0)))

    def test_similarities_stay_in_float32_under_autocast(self) -> None:
        generator = torch.Generator().manual_seed(5)
        rows = torch.nn.functional.normalize(torch.randn(1, 8, 24, generator=generator), dim=-1)
        valid = torch.ones(1, 8, dtype=torch.bool)
        exact = info_nce(rows, rows.roll(1, 1), valid)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = info_nce(rows, rows.roll(1, 1), valid)
        assert torch.equal(exact, mixed)
        halved = info_nce(rows.bfloat16(), rows.bfloat16(), valid)
        assert halved.dtype == torch.float32

    @pytest.mark.parametrize("mode", MODES)
    def test_gradients_are_those_of_finite_differences(self, mode: SoftmaxMode) -> None:
        generator = torch.Generator().manual_seed(6)
        rows = [
            torch.randn(2, count, 3, generator=generator, dtype=torch.float64).requires_grad_()
            for count in (4, 4, 2, 3)
        ]
        valid = torch.tensor([[True, True, False, True], [False] * 4])
        twins = near_duplicates(torch.tensor([[[0, 0], [0, 1], [5, 5], [9, 9]]] * 2), 1.5)

        def loss(*descriptors: Tensor) -> Tensor:
            return info_nce(
                descriptors[0],
                descriptors[1],
                valid,
                0.5,
                mode,
                negatives0=descriptors[2],
                negatives1=descriptors[3],
                ignore=twins,
            )

        assert torch.autograd.gradcheck(loss, rows)

    @pytest.mark.parametrize("mode", MODES)
    def test_no_correspondence_at_all(self, mode: SoftmaxMode) -> None:
        empty = torch.zeros(2, 0, 4, requires_grad=True)
        loss = info_nce(empty, empty, torch.zeros(2, 0, dtype=torch.bool), mode=mode)
        assert loss.shape == (2, 0)
        mean = masked_mean(loss, torch.zeros(2, 0, dtype=torch.bool))
        assert mean.item() == 0.0
        torch.autograd.backward(mean)


class TestNearDuplicates:
    def test_radius_is_inclusive_and_nothing_is_its_own_duplicate(self) -> None:
        keypoints = torch.tensor([[[10, 10], [13, 14], [10, 10], [16, 10]]])
        expected = [
            [False, True, True, False],
            [True, False, True, True],
            [True, True, False, False],
            [False, True, False, False],
        ]
        assert near_duplicates(keypoints, 5.0)[0].tolist() == expected
        assert near_duplicates(keypoints, 0.0)[0].sum().item() == 2


class TestGatherPixels:
    def test_x_comes_before_y(self) -> None:
        dense = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
        pixels = torch.tensor([[[3, 0], [0, 2]], [[1, 1], [3, 2]]])
        assert gather_pixels(dense, pixels).tolist() == [[3, 8], [17, 23]]
        wide = torch.stack([dense, -dense], -1)
        assert gather_pixels(wide, pixels)[1].tolist() == [[17, -17], [23, -23]]


class TestMaskedPatches:
    def test_hidden_patches_alone_count(self) -> None:
        target = torch.tensor([[[0.0, 2.0], [5.0, 5.0]]])
        prediction = torch.tensor([[[1.0, 2.0], [8.0, 9.0]]])
        hidden = torch.tensor([[False, True]])
        assert masked_patch_mse(prediction, target, hidden, normalize=False).item() == 12.5
        assert masked_patch_mse(prediction, target, None, normalize=False).item() == 6.5
        # Normalised: (0, 2) has mean 1 and unbiased variance 2.
        first = masked_patch_mse(prediction, target, ~hidden)
        root = math.sqrt(0.5)
        assert first.item() == pytest.approx(((1 + root) ** 2 + (2 - root) ** 2) / 2, rel=1e-5)

    def test_nothing_hidden_is_zero_with_a_gradient(self) -> None:
        prediction = torch.ones(1, 2, 3, requires_grad=True)
        loss = masked_patch_mse(prediction, torch.zeros(1, 2, 3), torch.zeros(1, 2).bool())
        assert loss.item() == 0.0
        torch.autograd.backward(loss)
        assert prediction.grad is not None
        assert not prediction.grad.any()


class TestTotalLoss:
    def test_is_the_weighted_sum_of_its_terms(self) -> None:
        predicted0, predicted1, truth, matches = random_batch()
        options = LossOptions(pointmap_weight=2.0, matching_weight=0.3)
        terms = total_loss(predicted0, predicted1, truth, matches, options)
        expected = 2.0 * terms.pointmap + 0.3 * terms.matching
        torch.testing.assert_close(terms.total.detach(), expected)
        assert terms.total.requires_grad
        assert not terms.pointmap.requires_grad
        assert not terms.matching_error.requires_grad

    def test_values_are_plain_numbers(self) -> None:
        predicted0, predicted1, truth, matches = random_batch()
        terms = total_loss(predicted0, predicted1, truth, matches)
        values = terms.values()
        assert isinstance(values, LossValues)
        assert values.total == terms.total.item()
        assert values.num_matches == 10
        assert values.num_pixels == int(truth.valid0.sum() + truth.valid1.sum())

    def test_hand_computed_pair(self) -> None:
        # Errors 0.5, 0, 1, 0.5 as above; confidence 2 everywhere.
        truth = targets(along_z(2, 4), along_z(6, 4))
        predicted0, predicted1 = output(along_z(2, 2), 2.0), output(along_z(1, 3), 2.0)
        terms = total_loss(predicted0, predicted1, truth, None)
        values = terms.values()
        expected = 2 * 0.25 + 2 * 0.75 - 2 * 0.2 * math.log(2)
        assert values.total == pytest.approx(expected)
        assert values.pointmap == pytest.approx(expected)
        assert values.pointmap_error == pytest.approx(1.0)
        assert (values.matching, values.matching_error) == (0.0, 0.0)
        assert (values.num_pixels, values.num_matches) == (4, 0)

    def test_nothing_valid_is_zero_with_zero_gradients(self) -> None:
        predicted0, predicted1, truth, matches = random_batch()
        nowhere = torch.zeros_like(truth.valid0)
        garbage = torch.full_like(truth.points0, math.nan)
        for normalization in ("mean_distance", "shift_and_scale"):
            empty = PointmapTargets(garbage, garbage, nowhere, nowhere, truth.is_metric)
            none = Correspondences(
                matches.pixels0, matches.pixels1, torch.zeros_like(matches.valid)
            )
            options = LossOptions(PointmapLossOptions(normalization))
            terms = total_loss(predicted0, predicted1, empty, none, options)
            assert terms.values() == LossValues(0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
            gradients = torch.autograd.grad(terms.total, leaves(predicted0, predicted1))
            assert not any(gradient.any() for gradient in gradients)

    @pytest.mark.parametrize("invalid", [math.nan, math.inf])
    def test_invalid_pixels_do_not_poison_the_gradient(self, invalid: float) -> None:
        predicted0, predicted1, truth, matches = random_batch()
        with torch.no_grad():
            predicted0.points[~truth.valid0] = invalid
            predicted0.confidence[~truth.valid0] = invalid
        broken = truth.points0.masked_fill(~truth.valid0[..., None], invalid)
        truth = PointmapTargets(broken, truth.points1, truth.valid0, truth.valid1, truth.is_metric)
        for options in (
            PointmapLossOptions(),
            PointmapLossOptions("shift_and_scale", log_space=True),
        ):
            terms = total_loss(predicted0, predicted1, truth, matches, LossOptions(options))
            gradients = torch.autograd.grad(terms.total, leaves(predicted0, predicted1))
            assert math.isfinite(terms.total.item())
            assert all(gradient.isfinite().all() for gradient in gradients)

    def test_one_pair_without_anything_leaves_the_others_alone(self) -> None:
        predicted0, predicted1, truth, matches = random_batch(pairs=2)
        keep = torch.tensor([True, False])
        truth = PointmapTargets(
            truth.points0,
            truth.points1,
            truth.valid0 & keep[:, None, None],
            truth.valid1 & keep[:, None, None],
            truth.is_metric,
        )
        matches = Correspondences(matches.pixels0, matches.pixels1, matches.valid & keep[:, None])
        both = total_loss(predicted0, predicted1, truth, matches)
        first = total_loss(
            predicted0[0],
            predicted1[0],
            PointmapTargets(
                truth.points0[:1],
                truth.points1[:1],
                truth.valid0[:1],
                truth.valid1[:1],
                truth.is_metric[:1],
            ),
            Correspondences(matches.pixels0[:1], matches.pixels1[:1], matches.valid[:1]),
        )
        torch.testing.assert_close(both.total, first.total)

    def test_near_duplicates_in_either_image_are_spared(self) -> None:
        descriptors = torch.zeros(1, 1, 10, 2)
        descriptors[..., 0] = 1
        points = torch.ones(1, 1, 10, 3)
        view = DenseOutput(points, torch.ones(1, 1, 10), descriptors)
        # The first two are neighbours in view 0, the last two in view 1.
        pixels0 = torch.tensor([[[0, 0], [1, 0], [9, 0]]])
        pixels1 = torch.tensor([[[0, 0], [5, 0], [6, 0]]])
        matches = Correspondences(pixels0, pixels1, torch.ones(1, 3, dtype=torch.bool))
        truth = targets(points, points)
        for radius, competitors in ((1.5, (2, 1, 2)), (None, (3, 3, 3))):
            options = LossOptions(matching=MatchingLossOptions(duplicate_radius_px=radius))
            terms = total_loss(view, view, truth, matches, options)
            expected = sum(2 * math.log(count) for count in competitors) / 3
            assert terms.matching_error.item() == pytest.approx(expected)

    def test_pixels_without_a_match_are_negatives(self) -> None:
        descriptors = torch.zeros(1, 1, 4, 2)
        descriptors[..., 0] = 1
        points = torch.ones(1, 1, 4, 3)
        view = DenseOutput(points, torch.ones(1, 1, 4), descriptors)
        pixel = torch.zeros(1, 1, 2, dtype=torch.int64)
        unmatched = torch.tensor([[[1, 0], [2, 0], [3, 0]]])
        matches = Correspondences(
            pixel,
            pixel,
            torch.ones(1, 1, dtype=torch.bool),
            negatives0=unmatched,
            negatives1=unmatched,
            negatives1_valid=torch.tensor([[True, False, False]]),
        )
        terms = total_loss(view, view, targets(points, points), matches)
        # 1 + 3 rivals in the column, 1 + 1 in the row; without a confidence nothing is weighted.
        assert terms.matching.item() == pytest.approx(math.log(4) + math.log(2))
        assert terms.matching.item() == terms.matching_error.item()

    def test_arguments_are_not_changed(self) -> None:
        predicted0, predicted1, truth, matches = random_batch()
        before = [value.detach().clone() for value in leaves(predicted0, predicted1)]
        torch.autograd.backward(total_loss(predicted0, predicted1, truth, matches).total)
        for old, new in zip(before, leaves(predicted0, predicted1), strict=True):
            assert torch.equal(old, new)

    def test_low_precision_outputs_give_a_float32_loss(self) -> None:
        predicted0, predicted1, truth, matches = random_batch()

        def rounded(view: DenseOutput, dtype: torch.dtype) -> DenseOutput:
            return DenseOutput(*(value.detach().bfloat16().to(dtype) for value in leaves(view)))

        with torch.autocast("cpu", dtype=torch.bfloat16):
            half0, half1 = (rounded(view, torch.bfloat16) for view in (predicted0, predicted1))
            terms = total_loss(half0, half1, truth, matches)
        wide0, wide1 = (rounded(view, torch.float32) for view in (predicted0, predicted1))
        reference = total_loss(wide0, wide1, truth, matches)
        assert terms.total.dtype == torch.float32
        assert terms.total.item() == reference.total.item()

    def test_matching_without_descriptors_is_refused(self) -> None:
        _, _, truth, matches = random_batch()
        view = output(truth.points0)
        with pytest.raises(InputError, match="outputs with descriptors"):
            total_loss(view, view, truth, matches)

    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            ({"temperature": 0.0}, "temperature"),
            ({"mode": "softmax"}, "mode"),
            ({"confidence": "max"}, "confidence"),
            ({"duplicate_radius_px": -1.0}, "duplicate_radius_px"),
            ({"probability_floor": 1.0}, "probability_floor"),
        ],
    )
    def test_impossible_options_are_refused(self, arguments: dict[str, float], name: str) -> None:
        with pytest.raises(InputError, match=name):
            MatchingLossOptions(**arguments)  # type: ignore[arg-type]

    def test_impossible_weights_are_refused(self) -> None:
        with pytest.raises(InputError, match="matching_weight: expected a number >= 0, got -1"):
            LossOptions(matching_weight=-1)
        with pytest.raises(InputError, match="normalization"):
            PointmapLossOptions("median")  # type: ignore[arg-type]
