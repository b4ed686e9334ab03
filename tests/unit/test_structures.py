from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from heads.outputs import DenseOutput
from matcher.errors import InputError
from matcher.structures import (
    Camera,
    GridMatches,
    ImageSize,
    Matches,
    Pose,
    RelativePose,
    View,
    as_keypoints,
)


class TestImageSize:
    def test_diagonal(self) -> None:
        assert ImageSize(3, 4).diagonal == 5.0

    @pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (-1, 2)])
    def test_empty(self, height: int, width: int) -> None:
        with pytest.raises(InputError, match="size: expected height and width of at least 1"):
            ImageSize(height, width)


class TestCamera:
    def test_pinhole(self) -> None:
        camera = Camera.pinhole(500, 510, 320, 240, ImageSize(480, 640))
        assert camera.focals == (500, 510)
        assert camera.principal_point == (320, 240)
        assert camera.distortion == (0, 0, 0, 0)
        np.testing.assert_array_equal(camera.matrix, [[500, 0, 320], [0, 510, 240], [0, 0, 1]])
        assert Camera.from_matrix(camera.matrix, camera.size) == camera

    def test_simple_radial_and_opencv(self) -> None:
        radial = Camera("SIMPLE_RADIAL", (400, 10, 20, 0.1))
        assert (radial.focals, radial.principal_point) == ((400, 400), (10, 20))
        assert radial.distortion == (0.1, 0, 0, 0)
        full = Camera("OPENCV", (400, 410, 10, 20, 0.1, 0.2, 0.3, 0.4))
        assert (full.focals, full.principal_point) == ((400, 410), (10, 20))
        assert full.distortion == (0.1, 0.2, 0.3, 0.4)

    @pytest.mark.parametrize(
        ("model", "params", "said"),
        [
            ("PINHOLE", (-500, 500, 0, 0), "camera focal fx: expected a positive number"),
            ("PINHOLE", (500, 0, 0, 0), "camera focal fy"),
            ("SIMPLE_RADIAL", (0, 0, 0, 0), "camera focal f: "),
            ("PINHOLE", (500, 500, float("nan"), 0), "camera cx: expected a finite number"),
            ("PINHOLE", (500, 500, 0), r"expected 4 numbers \(fx, fy, cx, cy\) for PINHOLE, got 3"),
            ("PINHOLE", ("wide", 1, 2, 3), "camera parameters: expected numbers"),
            ("FISHEYE", (1, 2, 3), "camera model: expected OPENCV or PINHOLE or SIMPLE_RADIAL"),
        ],
    )
    def test_refused(self, model: str, params: tuple, said: str) -> None:
        with pytest.raises(InputError, match=said):
            Camera(model, params)  # type: ignore[arg-type]

    def test_matrix_must_be_an_intrinsic_matrix(self) -> None:
        with pytest.raises(InputError, match=r"camera matrix: expected shape \(3, 3\)"):
            Camera.from_matrix(np.eye(4))
        skewed = np.array([[500, 3, 0], [0, 500, 0], [0, 0, 1]])
        with pytest.raises(InputError, match="camera matrix"):
            Camera.from_matrix(skewed)


class TestPose:
    rotation = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix()

    def test_transform_by_hand(self) -> None:
        # A quarter turn about z takes x to y.
        pose = Pose(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([10, 20, 30]))
        np.testing.assert_array_equal(
            pose.transform([[1, 0, 0], [0, 1, 5]]), [[10, 21, 30], [9, 20, 35]]
        )

    def test_inverse_and_product(self) -> None:
        b_from_a = Pose(self.rotation, np.array([1.0, 2, 3]))
        c_from_b = Pose(self.rotation.T, np.array([-1.0, 0, 2]))
        points = np.random.default_rng(0).normal(size=(5, 3))
        c_from_a = c_from_b @ b_from_a
        np.testing.assert_allclose(
            c_from_a.transform(points), c_from_b.transform(b_from_a.transform(points)), atol=1e-12
        )
        np.testing.assert_allclose((b_from_a.inverse @ b_from_a).matrix, np.eye(4), atol=1e-12)
        np.testing.assert_allclose(Pose.from_matrix(c_from_a.matrix).matrix, np.asarray(c_from_a))

    def test_is_a_copy_that_cannot_be_written(self) -> None:
        translation = np.array([1.0, 2, 3])
        pose = Pose(np.eye(3), translation)
        translation[0] = 9
        assert pose.translation[0] == 1
        with pytest.raises(ValueError, match="read-only"):
            pose.translation[0] = 4
        with pytest.raises(dataclasses.FrozenInstanceError):
            pose.rotation = np.eye(3)  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("rotation", "translation"),
        [
            (np.diag([1.0, 1, -1]), np.zeros(3)),
            (2 * np.eye(3), np.zeros(3)),
            (np.eye(3), np.array([0, np.nan, 0])),
            (np.eye(3), np.zeros(2)),
            (np.eye(4), np.zeros(3)),
        ],
    )
    def test_refused(self, rotation: np.ndarray, translation: np.ndarray) -> None:
        with pytest.raises(InputError, match="^pose"):
            Pose(rotation, translation)


class TestView:
    def view(self, **changes: object) -> View:
        fields = {
            "pixels": torch.zeros(3, 32, 48),
            "content_size": ImageSize(30, 40),
            "original_size": ImageSize(60, 80),
            "original_from_network": np.eye(3),
        }
        return View(**(fields | changes))  # type: ignore[arg-type]

    def test_matchable_leaves_out_padding_and_mask(self) -> None:
        assert self.view().network_size == ImageSize(32, 48)
        assert self.view().matchable().sum() == 30 * 40
        mask = torch.zeros(32, 48, dtype=torch.bool)
        mask[28:, 38:] = True
        assert self.view(mask=mask).matchable().nonzero().tolist() == [
            [28, 38], [28, 39], [29, 38], [29, 39],
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "changes",
        [
            {"pixels": torch.zeros(1, 3, 32, 48)},
            {"pixels": torch.zeros(3, 32, 48, dtype=torch.float64)},
            {"content_size": ImageSize(33, 40)},
            {"original_from_network": np.eye(4)},
            {"mask": torch.zeros(30, 40, dtype=torch.bool)},
        ],
    )
    def test_refused(self, changes: dict[str, object]) -> None:
        with pytest.raises(InputError):
            self.view(**changes)


class TestMatches:
    def test_select(self) -> None:
        matches = Matches(
            torch.tensor([[0.0, 1], [2, 3]]),
            torch.tensor([[4.0, 5], [6, 7]]),
            torch.tensor([0.5, 1]),
        )
        kept = matches.select(matches.confidence > 0.7)
        assert len(matches) == 2
        assert (kept.keypoints0.tolist(), kept.keypoints1.tolist()) == ([[2, 3]], [[6, 7]])
        assert len(Matches.empty()) == 0

    @pytest.mark.parametrize(
        ("keypoints1", "confidence", "said"),
        [
            (torch.zeros(1, 2), torch.ones(2), "keypoints1: expected shape"),
            (torch.zeros(2, 2, dtype=torch.float64), torch.ones(2), "keypoints1: expected float32"),
            (torch.zeros(2, 2), torch.tensor([0.5, 0.0]), "confidence: expected values in"),
            (torch.zeros(2, 2), torch.tensor([0.5, 1.1]), "confidence: expected values in"),
            (torch.zeros(2, 2), torch.tensor([0.5, float("nan")]), "confidence"),
        ],
    )
    def test_refused(self, keypoints1: torch.Tensor, confidence: torch.Tensor, said: str) -> None:
        with pytest.raises(InputError, match=said):
            Matches(torch.zeros(2, 2), keypoints1, confidence)

    def test_grid_matches(self) -> None:
        pixels = torch.arange(6).reshape(3, 2)
        matches = GridMatches(pixels, pixels + 1, torch.tensor([0.1, 0.2, 0.3]))
        kept = matches.select(torch.tensor([2, 0]))
        assert kept.pixels0.tolist() == [[4, 5], [0, 1]]
        assert kept.pixels1.tolist() == [[5, 6], [1, 2]]
        with pytest.raises(InputError, match="pixels1"):
            GridMatches(pixels, pixels[:2], torch.zeros(3))


class TestRelativePose:
    def test_no_answer_is_falsy_and_has_a_reason(self) -> None:
        answer = RelativePose.none(7, "fewer than 8 matches")
        assert not answer
        assert (answer.cam1_from_cam0, answer.reason) == (None, "fewer than 8 matches")
        assert answer.inlier_mask.tolist() == [False] * 7
        assert answer.num_inliers == 0

    def test_an_answer_is_truthy(self) -> None:
        answer = RelativePose(Pose.identity(), np.array([True, False, True]))
        assert answer
        assert answer.num_inliers == 2

    def test_pose_or_reason_and_never_both(self) -> None:
        with pytest.raises(InputError, match="got both"):
            RelativePose(Pose.identity(), np.zeros(0, dtype=bool), reason="why not")
        with pytest.raises(InputError, match="got neither"):
            RelativePose(None, np.zeros(0, dtype=bool))


def test_dense_output_selects_along_the_batch() -> None:
    output = DenseOutput(
        torch.arange(24.0).reshape(2, 2, 2, 3), torch.ones(2, 2, 2), torch.zeros(2, 2, 2, 5)
    )
    one = output[1]
    assert one.points.shape == (1, 2, 2, 3)
    assert one.points[0, 0, 0].tolist() == [12, 13, 14]
    assert one.descriptors is not None
    assert one.descriptors.shape == (1, 2, 2, 5)
    assert one.descriptor_confidence is None
    assert output[0:2].points.shape == (2, 2, 2, 3)


def test_as_keypoints() -> None:
    assert as_keypoints("points", [[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(InputError, match=r"points: expected shape \(M, 2\), got \(2, 3\)"):
        as_keypoints("points", np.zeros((2, 3)))
    with pytest.raises(InputError, match="points: expected finite numbers"):
        as_keypoints("points", [[np.nan, 0]])
