"""The released preprocessing, against reference values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from matcher.images import released_crop


@pytest.fixture(scope="module")
def reference(parity_data: Path) -> dict[str, np.ndarray]:
    with np.load(parity_data / "func_load_images.npz") as archive:
        return dict(archive)


def synthetic_picture(width: int, height: int) -> np.ndarray:
    """The picture the reference values were computed on."""
    y, x = np.mgrid[:height, :width]
    red = (7 * x + 3 * y) % 256
    green = np.rint(255 * (0.5 * np.sin(x / 9) * np.cos(y / 7) + 0.5))
    blue = 200 * ((x // 16 + y // 16) % 2) + 20
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def test_sizes_and_crops_of_every_case(reference: dict[str, np.ndarray]) -> None:
    assert len(reference["rules"]) == 26
    for row in reference["rules"].astype(int).tolist():
        width, height, size, square_ok, patch = row[:5]
        resized_width, resized_height, left, top, right, bottom = row[5:11]
        view = released_crop(
            np.zeros((height, width, 3), np.uint8),
            size,
            square_ok=bool(square_ok),
            patch_size=patch,
        )
        assert (view.network_size.width, view.network_size.height) == tuple(row[11:]), row
        # The corners of the result, through the crop and the resize of the table.
        corners = np.array([[-0.5, -0.5, 1.0], [right - left - 0.5, bottom - top - 0.5, 1.0]])
        scale = np.array([width / resized_width, height / resized_height])
        expected = np.array([[left, top], [right, bottom]]) * scale - 0.5
        mapped = corners @ view.original_from_network.T
        np.testing.assert_allclose(mapped[:, :2], expected, atol=1e-9)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(640, 480, 512), (333, 500, 512), (100, 60, 224), (600, 600, 512)],
)
def test_pixels(reference: dict[str, np.ndarray], width: int, height: int, size: int) -> None:
    view = released_crop(synthetic_picture(width, height), size)
    np.testing.assert_array_equal(
        reference[f"true_shape_{width}x{height}_{size}"],
        [[view.network_size.height, view.network_size.width]],
    )
    sampled = view.pixels[:, ::8, ::8].numpy()
    # One grey level: Pillow's filters round differently from release to release.
    np.testing.assert_allclose(
        sampled, reference[f"img_{width}x{height}_{size}_s8"], atol=1.01 / 127.5
    )
