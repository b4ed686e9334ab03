from __future__ import annotations

import math

import pytest
import torch

from heads import ActivationRange, DenseOutput, HeadConfig, build_head
from heads.activations import confidence_from_raw, points_from_raw, unit_descriptors
from heads.dpt import default_hooks
from heads.linear import tokens_to_map
from heads.local_features import _places
from heads.reconstruction import PatchPixelHead

SIZES = {"encoder_dim": 12, "decoder_dim": 8, "decoder_depth": 4}
SMALL_DPT = {"feature_dim": 8, "last_dim": 4, "layer_dims": (4, 6, 8, 10)}


def layers(rows: int, columns: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    count = rows * columns
    decoder = [torch.randn(2, count, 8, generator=generator) for _ in range(4)]
    return [torch.randn(2, count, 12, generator=generator), *decoder]


@pytest.mark.parametrize("points", ["linear", "dpt"])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (3, 5)])
@pytest.mark.parametrize("separate", [True, False])
def test_released_heads_cover_every_pixel(points, grid, separate):
    config = HeadConfig(
        points=points,
        local_features="mlp",
        descriptor_dim=5,
        separate_descriptor_confidence=separate,
        **SMALL_DPT,
    )
    output = build_head(config, **SIZES)(layers(*grid), grid)
    size = (2, 16 * grid[0], 16 * grid[1])
    assert output.points.shape == (*size, 3)
    assert output.confidence.shape == size
    assert output.descriptors.shape == (*size, 5)
    assert torch.equal(output.descriptor_confidence, output.confidence) is not separate


def test_linear_head_puts_every_token_into_its_patch():
    head = build_head(HeadConfig(points="linear", local_features="none"), **SIZES)
    tokens = layers(2, 3)
    before = head(tokens, (2, 3)).points
    tokens[-1] = tokens[-1].clone()
    tokens[-1][:, 4] += 1
    changed = (head(tokens, (2, 3)).points != before).any(dim=-1)
    assert changed[:, 16:, 16:32].all()
    assert int(changed.sum()) == 2 * 16 * 16


def test_fused_head_needs_its_pyramid():
    config = HeadConfig(points="fused", local_features="fused", fused_dims=(8, 8, 8, 8))
    with pytest.raises(ValueError, match="convolutional stem"):
        build_head(config, **SIZES)
    with pytest.raises(ValueError, match="patches of 16"):
        build_head(config, **SIZES, patch_size=14, pyramid_dims=(4, 4, 4))


def test_pointmaps_may_be_told_where_a_pixel_lies():
    """The same features everywhere: only a head that knows places can tell pixels apart."""

    def points(point_places):
        torch.manual_seed(0)
        config = HeadConfig(
            points="fused",
            local_features="fused",
            fused_dims=(8, 8, 8, 8),
            point_places=point_places,
        )
        head = build_head(config, **SIZES, pyramid_dims=(4, 4, 4))
        if point_places:
            torch.nn.init.constant_(head.fused.points_places.weight, 0.1)
        rows, columns = 6, 8
        tokens = [torch.ones(1, rows * columns, layer.shape[-1]) for layer in layers(1, 1)]
        pyramid = [torch.ones(1, 4, 16 * rows // n, 16 * columns // n) for n in (2, 4, 8)]
        pixels = torch.ones(1, 3, 16 * rows, 16 * columns)
        with torch.no_grad():
            raw = head.raw(tokens, (rows, columns), pyramid, pixels)
        # Zero padding tells the border from the inside, so the middle is looked at.
        return raw.points[0, :, 32:64, 40:88], raw.features[0, :, 32:64, 40:88]

    blind, blind_features = points(False)
    told, told_features = points(True)
    assert float((blind - blind[:, :1, :1]).abs().max()) < 1e-3
    assert float((told - told[:, :1, :1]).abs().max()) > 1e-2
    assert told_features.shape == blind_features.shape


def test_places_are_measured_from_the_middle_in_halves_of_the_long_side():
    places = _places(torch.zeros(2, 5, 3, 4))
    assert places.shape == (1, 2, 3, 4)
    assert places[0, 0, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert places[0, 1, :, 0].tolist() == [-0.5, 0.0, 0.5]


def test_hooks_are_rounded_down():
    assert default_hooks(12) == (0, 6, 9, 12)
    assert default_hooks(10) == (0, 5, 7, 10)


def test_tokens_come_in_raster_order():
    tokens = torch.arange(6.0).reshape(1, 6, 1)
    assert tokens_to_map(tokens, (2, 3)).tolist() == [[[[0, 1, 2], [3, 4, 5]]]]


def test_reconstruction_head():
    assert PatchPixelHead(8, 4)(torch.zeros(2, 5, 8)).shape == (2, 5, 48)


def test_point_activations_by_hand():
    raw = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    points = points_from_raw(raw, ActivationRange("exp"))
    expected = math.expm1(5.0) / 5
    torch.testing.assert_close(points[0], torch.tensor([3 * expected, 0.0, 4 * expected]))
    assert points[1].tolist() == [0, 0, 0]
    square = points_from_raw(raw, ActivationRange("square"))
    torch.testing.assert_close(square[0], torch.tensor([15.0, 0.0, 20.0]))
    clipped = points_from_raw(raw, ActivationRange("linear", -1.0, 3.5))
    assert clipped[0].tolist() == [3.0, 0.0, 3.5]
    with pytest.raises(ValueError, match="no activation 'sigmoid'"):
        points_from_raw(raw, ActivationRange("sigmoid", 0, 1))


def test_confidence_activations_by_hand():
    raw = torch.tensor([0.0, 100.0])
    assert confidence_from_raw(raw, ActivationRange("exp", 1.0, 30.0)).tolist() == [2.0, 30.0]
    assert confidence_from_raw(raw, ActivationRange("sigmoid", 2.0, 4.0)).tolist() == [3.0, 4.0]
    with pytest.raises(ValueError, match="no activation 'linear'"):
        confidence_from_raw(raw, ActivationRange("linear"))


def test_zero_descriptors_stay_zero_with_a_finite_gradient():
    raw = torch.zeros(1, 4, requires_grad=True)
    unit_descriptors(raw).sum().backward()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": "x"}, "points"),
        ({"local_features": "x"}, "local_features"),
        ({"points": "fused"}, "expected both fused or neither"),
        ({"descriptor_dim": 1}, "descriptor_dim"),
        ({"layer_dims": (1, 2, 3)}, "layer_dims"),
        ({"fused_dims": (1, 2, 3, 0)}, "fused_dims"),
        ({"point_places": True}, "point_places"),
    ],
)
def test_head_configurations_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HeadConfig(**options)


def test_activation_ranges_that_are_refused():
    with pytest.raises(ValueError, match="activation kind"):
        ActivationRange("tanh")
    with pytest.raises(ValueError, match="low < high"):
        ActivationRange("exp", 1.0, 1.0)


def test_selecting_from_a_dense_output():
    output = DenseOutput(torch.arange(18.0).reshape(3, 1, 2, 3), torch.zeros(3, 1, 2))
    assert output[1].points.shape == (1, 1, 2, 3)
    assert output[1:].points.shape == (2, 1, 2, 3)
    assert output[1].descriptors is None
