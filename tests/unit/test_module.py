from __future__ import annotations

import inspect

import kornia.feature
import numpy as np
import pytest
import torch

from matcher import InputError, Matcher, PairOptions, WidebaseModule
from matcher.checkpoints import CheckpointInfo
from matcher.model import ModelConfig, TwoViewNetwork
from tests.relief import relief_matcher, relief_pair

OPTIONS = PairOptions(max_size=160, crops="never")


@pytest.fixture(scope="module")
def pair():
    return relief_pair()


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    network = TwoViewNetwork(ModelConfig.tiny())
    return Matcher(network, CheckpointInfo("tiny"), PairOptions(max_size=96, crops="never"))


def as_batch(*images):
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images])


def test_a_batch_of_two_is_two_matches(pair):
    matcher = relief_matcher(pair, OPTIONS)
    module = WidebaseModule(matcher=matcher)
    batch = {
        "image0": as_batch(pair.image0, pair.image1).float() / 255,
        "image1": as_batch(pair.image1, pair.image0).float() / 255,
    }
    found = module(batch)
    parts = [
        matcher.match(pair.image0, pair.image1),
        matcher.match(pair.image1, pair.image0),
    ]
    for key in ("keypoints0", "keypoints1", "confidence"):
        assert torch.equal(found[key], torch.cat([getattr(part, key) for part in parts]))
    counts = torch.bincount(found["batch_indexes"]).tolist()
    assert counts == [len(part) for part in parts]
    assert found["batch_indexes"].dtype == torch.int64
    assert bool((found["batch_indexes"].diff() >= 0).all())


def test_keys_are_those_of_kornia_loftr():
    """What LoFTR's ``forward`` documents and fills, it fills too."""
    source = inspect.getsource(kornia.feature.LoFTR.forward)
    ours = {"keypoints0", "keypoints1", "confidence", "batch_indexes"}
    assert [key for key in ours if key not in source] == []


def test_grayscale_batch_with_sizes_of_its_own(untrained):
    random = torch.Generator().manual_seed(0)
    batch = {
        "image0": torch.rand(2, 1, 48, 64, generator=random),
        "image1": torch.rand(2, 1, 80, 56, generator=random),
    }
    found = WidebaseModule(matcher=untrained)(batch)
    assert set(found) == {"keypoints0", "keypoints1", "confidence", "batch_indexes"}
    count = len(found["confidence"])
    assert found["keypoints0"].shape == (count, 2)
    assert found["keypoints1"].shape == (count, 2)
    assert found["batch_indexes"].shape == (count,)
    assert set(found["batch_indexes"].tolist()) <= {0, 1}
    assert float(found["keypoints0"].max(dim=0).values[0]) <= 63
    assert float(found["keypoints1"].max(dim=0).values[1]) <= 79


def test_blank_images_give_empty_tensors(untrained):
    found = WidebaseModule(matcher=untrained)(
        {"image0": torch.zeros(2, 1, 48, 64), "image1": torch.zeros(2, 1, 48, 64)}
    )
    assert found["keypoints0"].shape == (0, 2)
    assert found["batch_indexes"].shape == (0,)


def test_masks_hold_for_their_own_pair(pair):
    module = WidebaseModule(matcher=relief_matcher(pair, OPTIONS))
    mask0 = torch.ones(2, 240, 320)
    mask0[1, :, :160] = 0
    found = module(
        {
            "image0": as_batch(pair.image0, pair.image0),
            "image1": as_batch(pair.image1, pair.image1),
            "mask0": mask0,
        }
    )
    x = found["keypoints0"][:, 0]
    is_second = found["batch_indexes"] == 1
    assert float(x[~is_second].min()) < 20
    assert float(x[is_second].min()) >= 159.5


def test_gradients_of_the_callers_images_do_not_matter(untrained):
    image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    found = WidebaseModule(matcher=untrained)({"image0": image.requires_grad_(), "image1": image})
    assert not found["confidence"].requires_grad


def test_it_is_a_module_with_the_networks_parameters(untrained):
    module = WidebaseModule(matcher=untrained, options=PairOptions(max_size=64))
    assert sum(p.numel() for p in module.parameters()) == untrained.network.num_parameters
    assert not module.network.training


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image0": None}, "image0: expected a tensor .*, got NoneType"),
        ({"image0": np.zeros((1, 3, 32, 32))}, "image0: expected a tensor .*, got ndarray"),
        ({"image1": torch.zeros(3, 32, 32)}, r"image1: expected shape .*, got \(3, 32, 32\)"),
        ({"image1": torch.zeros(1, 4, 32, 32)}, "image1: expected shape"),
        ({"image1": torch.zeros(2, 3, 32, 32)}, "image1: expected 1 images, as image0, got 2"),
        ({"image0": torch.full((1, 3, 32, 32), 3.0)}, r"image0: expected floats in \[0, 1\]"),
        ({"image0": torch.full((1, 3, 32, 32), torch.nan)}, "image0: expected finite pixels"),
        ({"mask0": torch.ones(1, 16, 16)}, r"mask0: expected a tensor of shape \(1, 32, 32\)"),
        ({"mask1": 1}, "mask1: expected a tensor of shape .* got int"),
    ],
)
def test_bad_batches_are_named(untrained, changes, words):
    batch = {"image0": torch.rand(1, 3, 32, 32), "image1": torch.rand(1, 3, 32, 32)} | changes
    with pytest.raises(InputError, match=words):
        WidebaseModule(matcher=untrained)(batch)


def test_an_empty_batch_is_refused(untrained):
    batch = {"image0": torch.zeros(0, 3, 32, 32), "image1": torch.zeros(0, 3, 32, 32)}
    with pytest.raises(InputError, match="image0: expected at least one image"):
        WidebaseModule(matcher=untrained)(batch)


def test_it_needs_a_model_or_a_matcher():
    with pytest.raises(InputError, match="pretrained: expected a model, or a matcher, got neither"):
        WidebaseModule(None)
