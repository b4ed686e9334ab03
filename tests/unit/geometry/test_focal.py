from __future__ import annotations

import numpy as np
import pytest

from matcher.errors import InputError
from matcher.geometry.focal import estimate_camera, estimate_focal, focal_from_field_of_view
from matcher.structures import ImageSize

PRINCIPAL_POINT = (16.0, 12.0)


@pytest.fixture(scope="module")
def golden(parity_data):
    with np.load(parity_data / "func_focal.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("method", ["median", "weiszfeld"])
@pytest.mark.parametrize("pair", [0, 1])
def test_agrees_with_the_released_estimators(golden, method, pair):
    points = golden["pts3d"][pair]

    def check(name, points, principal_point=PRINCIPAL_POINT, **limits):
        focal = estimate_focal(points, principal_point, method=method, **limits)
        assert focal == pytest.approx(golden[name][pair], rel=1e-5)

    check(f"focal_{method}", points)
    check(f"focal_{method}_clip12_16", points, min_ratio=1.2, max_ratio=1.6)
    check(f"focal_{method}_pp15_11", points, (15.0, 11.0))
    check(f"focal_bad_{method}", golden["pts3d_bad"][pair])


def make_pointmap(focal: float, center: tuple[float, float], noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64].astype(float)
    rays = np.stack([(x - center[0]) / focal, (y - center[1]) / focal, np.ones_like(x)], axis=-1)
    return rays * rng.uniform(2, 5, (48, 64, 1)) + noise * rng.normal(size=(48, 64, 3))


@pytest.mark.parametrize("method", ["median", "weiszfeld"])
def test_exact_pointmap_gives_the_exact_focal(method):
    points = make_pointmap(57.3, (31.5, 23.5))
    assert estimate_focal(points, method=method) == pytest.approx(57.3, rel=1e-9)
    points[:, :20] = np.nan
    assert estimate_focal(points, method=method) == pytest.approx(57.3, rel=1e-9)


def test_focal_and_principal_point_together():
    camera = estimate_camera(make_pointmap(57.3, (29.0, 25.5)))
    np.testing.assert_allclose(camera.params, (57.3, 57.3, 29.0, 25.5), rtol=1e-6)
    assert camera.size == ImageSize(48, 64)
    noisy = estimate_camera(make_pointmap(57.3, (29.0, 25.5), noise=0.02))
    np.testing.assert_allclose(noisy.params, (57.3, 57.3, 29.0, 25.5), rtol=0.01)


def test_confidence_silences_wrong_points():
    points, confidence = make_pointmap(57.3, (29.0, 25.5)), np.ones((48, 64))
    points[:, :30] *= [2.0, 2.0, 1.0]
    confidence[:, :30] = 0.0
    camera = estimate_camera(points, confidence)
    np.testing.assert_allclose(camera.params, (57.3, 57.3, 29.0, 25.5), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_pointmap_without_an_answer(value):
    points = np.full((12, 16, 3), value)
    assert estimate_focal(points) is None
    assert estimate_focal(points, method="median") is None
    assert estimate_camera(points) is None
    assert estimate_focal(make_pointmap(-40.0, (31.5, 23.5))) is None


def test_constant_pointmap_has_no_camera():
    assert estimate_camera(np.ones((12, 16, 3))) is None


def test_bad_arguments():
    with pytest.raises(InputError, match=r"pointmap: expected shape \(H, W, 3\)"):
        estimate_focal(np.zeros((4, 3)))
    with pytest.raises(InputError, match="method"):
        estimate_focal(np.ones((12, 16, 3)), method="mean")


def test_focal_from_field_of_view():
    assert focal_from_field_of_view(ImageSize(24, 32), 90.0) == pytest.approx(16.0)
    assert focal_from_field_of_view(ImageSize(32, 24)) == pytest.approx(16 / np.tan(np.pi / 6))
