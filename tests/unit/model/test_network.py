from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest
import torch

from heads import ActivationRange, HeadConfig
from matcher.errors import InputError
from matcher.model import EncodedViews, ModelConfig, TransformerConfig, TwoViewNetwork

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def released_config() -> ModelConfig:
    head = HeadConfig(
        feature_dim=8, last_dim=4, layer_dims=(4, 6, 8, 10), hidden_dim_factor=0.5, descriptor_dim=6
    )
    return ModelConfig(
        encoder=TransformerConfig(16, 1, 2), decoder=TransformerConfig(8, 2, 2), head=head
    )


@pytest.fixture(scope="module", params=["fused", "released"])
def network(request) -> TwoViewNetwork:
    torch.manual_seed(0)
    config = ModelConfig.tiny() if request.param == "fused" else released_config()
    built = TwoViewNetwork(config).eval()
    if built.decoder.view_embed is not None:
        torch.nn.init.normal_(built.decoder.view_embed)
    return built


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator) * 2 - 1


def fields(output):
    return [
        output.points,
        output.confidence,
        output.descriptors,
        output.descriptor_confidence,
    ]


def assert_same(first, second):
    for one, other in zip(fields(first), fields(second), strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_shapes_and_ranges(network):
    with torch.no_grad():
        prediction = network(images(2, 3, 32, 48), images(2, 3, 48, 64, seed=1))
    descriptor_dim = network.config.head.descriptor_dim
    for output, height, width in ((prediction.output0, 32, 48), (prediction.output1, 48, 64)):
        assert output.points.shape == (2, height, width, 3)
        assert output.confidence.shape == (2, height, width)
        assert output.descriptors.shape == (2, height, width, descriptor_dim)
        assert output.descriptor_confidence.shape == (2, height, width)
        assert float(output.confidence.min()) >= 1
        assert float(output.descriptor_confidence.min()) > 0
        norms = output.descriptors.norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-5)


def test_encode_and_decode_are_forward(network):
    first, second = images(2, 3, 32, 32), images(2, 3, 32, 32, seed=1)
    with torch.no_grad():
        whole = network(first, second)
        parts = network.decode(network.encode(first), network.encode(second))
    assert_same(whole.output0, parts.output0)
    assert_same(whole.output1, parts.output1)


def test_pointmaps_are_left_out_where_they_have_a_trunk_of_their_own(network):
    first, second = images(2, 3, 32, 32), images(2, 3, 32, 32, seed=1)
    with torch.no_grad():
        whole = network(first, second)
        views = network.encode(first), network.encode(second)
        lean = network.decode(*views, points=False)
        each = network.decode_each([views[0][0]], [views[1][0]], points=False)[0]
    assert_same(lean.output1[0], each.output1)
    for one, other in ((whole.output0, lean.output0), (whole.output1, lean.output1)):
        assert torch.equal(one.descriptors, other.descriptors)
        assert torch.equal(one.descriptor_confidence, other.descriptor_confidence)
        if network.points_decoder is None:
            assert torch.equal(one.points, other.points)
        else:
            assert other.points is None
            assert other.confidence is None
            with pytest.raises(ValueError, match="expected a prediction with pointmaps"):
                other.pointmap()


def test_an_image_does_not_depend_on_its_batch(network):
    first, second = images(3, 3, 32, 48), images(3, 3, 48, 32, seed=1)
    with torch.no_grad():
        together = network(first, second)
        alone = network(first[1:2], second[1:2])
    assert_same(together.output0[1], alone.output0)
    assert_same(together.output1[1], alone.output1)


def test_the_two_views_are_told_apart(network):
    image = images(1, 3, 32, 32)
    with torch.no_grad():
        prediction = network(image, image)
    assert not torch.allclose(prediction.output0.points, prediction.output1.points, atol=1e-4)


def test_any_mixture_of_shapes(network):
    portrait, landscape = images(3, 48, 32), images(3, 32, 48, seed=1)
    other = images(3, 48, 32, seed=2)
    sources, targets = [portrait, landscape, other], [landscape, landscape, portrait]
    with torch.no_grad():
        views0, views1 = network.encode_each(sources), network.encode_each(targets)
        each = network.decode_each(views0, views1)
        assert [view.grid for view in views0] == [(3, 2), (2, 3), (3, 2)]
        for source, target, prediction in zip(sources, targets, each, strict=True):
            single = network(source[None], target[None])
            assert_same(prediction.output0, single.output0)
            assert_same(prediction.output1, single.output1)


def test_encoded_views_select_and_stack(network):
    with torch.no_grad():
        batch = network.encode(images(3, 3, 32, 48))
    assert len(batch) == 3
    singles = [batch[0], batch[1], batch[-1]]
    assert [len(single) for single in singles] == [1, 1, 1]
    assert torch.equal(singles[2].tokens, batch.tokens[2:])
    again = EncodedViews.stack(singles)
    assert torch.equal(again.tokens, batch.tokens)
    assert again.grid == batch.grid == (2, 3)
    assert again.shape_key == batch.shape_key
    assert len(again.pyramid) == len(batch.pyramid)
    assert all(torch.equal(a, b) for a, b in zip(again.pyramid, batch.pyramid, strict=True))
    if batch.pixels is None:
        assert again.pixels is None
    else:
        assert torch.equal(again.pixels, batch.pixels)


def test_deepcopy_and_pickle_are_independent_and_equal(network):
    first, second = images(1, 3, 32, 32), images(1, 3, 32, 32, seed=1)
    with torch.no_grad():
        expected = network(first, second)
        for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert_same(twin(first, second).output1, expected.output1)
            for parameter in twin.parameters():
                parameter.zero_()
        assert_same(network(first, second).output1, expected.output1)


def test_double_precision_copy(network):
    twin = copy.deepcopy(network).double()
    first, second = images(1, 3, 32, 32), images(1, 3, 32, 32, seed=1)
    with torch.no_grad():
        precise = twin(first.double(), second.double())
        single = network(first, second)
    assert {parameter.dtype for parameter in twin.parameters()} == {torch.float64}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    torch.testing.assert_close(precise.output1.points.float(), single.output1.points, **CLOSE)


def test_attention_is_the_same_with_and_without_gradients():
    network = TwoViewNetwork(ModelConfig.tiny()).eval()
    pixels0, pixels1 = torch.randn(2, 1, 3, 64, 96).clamp(-1, 1).unbind()
    learning = network(pixels0, pixels1)
    with torch.no_grad():
        fused = network(pixels0, pixels1)
    assert learning.output1.descriptors.requires_grad
    for one, other in ((learning.output0, fused.output0), (learning.output1, fused.output1)):
        torch.testing.assert_close(one.points, other.points, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.descriptors, other.descriptors, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter_that_is_used():
    torch.manual_seed(0)
    network = TwoViewNetwork(ModelConfig.tiny())
    prediction = network(images(1, 3, 32, 32), images(1, 3, 32, 48, seed=1))
    sum(
        field.sum()
        for side in ("output0", "output1")
        for field in fields(getattr(prediction, side))
    ).backward()
    without = [name for name, value in network.named_parameters() if value.grad is None]
    assert without == []


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 30, 32), (1, 3, 32, 40), (1, 3, 0, 32)]
)
def test_pixels_of_another_shape(network, shape):
    with pytest.raises(InputError, match="pixels: expected"):
        network.encode(torch.zeros(shape))


def test_batches_that_differ_in_length(network):
    with torch.no_grad():
        one, two = network.encode(images(1, 3, 32, 32)), network.encode(images(2, 3, 32, 32))
    with pytest.raises(InputError, match=r"view1: expected as many images as view0 \(1\), got 2"):
        network.decode(one, two)
    with pytest.raises(InputError, match="views1"):
        network.decode_each([one], [one, one])


def test_size_of_the_bundled_model():
    with torch.device("meta"):
        network = TwoViewNetwork(ModelConfig.small())
    assert network.num_parameters < 25_000_000
    stored = sum(tensor.numel() for tensor in network.state_dict().values())
    assert 2 * stored < 50_000_000  # bytes in half precision


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_configurations_survive_json(name):
    config = dataclasses.replace(getattr(ModelConfig, name)(), is_metric=True)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_activation_ranges_survive_json():
    head = HeadConfig(
        points="dpt",
        local_features="mlp",
        depth_activation=ActivationRange("linear", -2.0),
        confidence_activation=ActivationRange("sigmoid", 0.0, 1.0),
    )
    config = dataclasses.replace(released_config(), head=head)
    text = json.dumps(config.to_dict(), allow_nan=False)
    assert ModelConfig.from_dict(json.loads(text)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "surprise"),
        ({"encoder": {"embed_dim": 16, "depth": 1, "heads": 2}}, "heads"),
        ({"encoder": {"embed_dim": 16}}, "complete configuration"),
        ({"encoder": {"embed_dim": 18, "depth": 1, "num_heads": 2}}, "embed_dim"),
        ({"stem": "other"}, "stem"),
        ({"head": {"points": "fused", "local_features": "fused"}}, "a convolutional stem only"),
        ({"rope_base": -1}, "rope_base"),
        ({"head": {"points": "magic"}}, "head config"),
        ({"head": {"points": "fused", "local_features": "mlp"}}, "head config"),
    ],
)
def test_configurations_that_are_refused(change, message):
    values = released_config().to_dict() | change
    with pytest.raises(InputError, match=message) as caught:
        ModelConfig.from_dict(values)
    assert "\n" not in str(caught.value)
