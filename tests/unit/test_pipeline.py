from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from matcher import ImageSize, InputError, Matcher, MatchingOptions, PairOptions, pair_inference
from matcher.checkpoints import CheckpointInfo
from matcher.encoding_cache import MemoryLimits
from matcher.geometry.pose import rotation_error_deg, translation_error_deg
from matcher.model import ModelConfig, TwoViewNetwork
from tests.relief import relief_matcher, relief_pair

SMALL_VIEW = PairOptions(max_size=160, crops="never")
SYMMETRIC = PairOptions(
    max_size=160, crops="never", matching=MatchingOptions(symmetric=True, subsample=4)
)
cached_pair = functools.cache(relief_pair)


@pytest.fixture(scope="module")
def pair():
    return cached_pair()


@pytest.fixture(scope="module")
def matcher(pair):
    return relief_matcher(pair, SMALL_VIEW)


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    network = TwoViewNetwork(ModelConfig.tiny())
    return Matcher(network, CheckpointInfo("tiny", "CC0-1.0"), PairOptions(max_size=96))


def rows(result):
    """Matches as a sorted array (M, 5), so that sets can be compared."""
    table = torch.column_stack([result.keypoints0, result.keypoints1, result.confidence]).numpy()
    return table[np.lexsort(table.T[::-1])]


def away_from_edges(keypoints, size, max_size):
    """The stand-in network smooths its input: it is exact a few pixels inside only."""
    long_side = max(size)
    margin = 6 * long_side / min(max(long_side, 128), max_size)
    last = np.array([size[1] - 1, size[0] - 1])
    return ((keypoints > margin) & (keypoints < last - margin)).all(axis=1)


def bias_px(pair, result, options):
    """Mean error of the matches, pixels of image 1, x and y, and how many it is the mean of."""
    keypoints0, keypoints1 = result.keypoints0.numpy(), result.keypoints1.numpy()
    sizes = pair.image0.shape[:2], pair.image1.shape[:2]
    kept = away_from_edges(keypoints0, sizes[0], options.max_size)
    kept &= away_from_edges(keypoints1, sizes[1], options.max_size)
    errors = keypoints1[kept] - pair.true_keypoints1(keypoints0[kept])
    return errors.mean(axis=0), int(kept.sum())


def check_pose(pair, pose, rotation_deg, translation_deg):
    assert pose.reason is None
    estimated, true = pose.cam1_from_cam0, pair.cam1_from_cam0
    assert rotation_error_deg(estimated.rotation, true.rotation) < rotation_deg
    assert translation_error_deg(estimated.translation, true.translation) < translation_deg


@pytest.mark.parametrize(
    ("size0", "size1", "max_size"),
    [
        ((240, 320), (240, 320), 160),  # shrunk by a whole number
        ((240, 320), (320, 240), 160),  # landscape and portrait
        ((239, 317), (301, 215), 160),  # odd sizes: rounding and padding in both directions
        ((60, 80), (80, 60), 160),  # enlarged to the smallest view
        ((240, 320), (240, 320), 512),  # its own size
        ((100, 400), (250, 250), 160),  # panorama and square
        ((60, 80), (240, 320), 160),  # ten times as many pixels on one side
    ],
)
def test_keypoints_come_back_in_original_pixels(size0, size1, max_size):
    pair = cached_pair(size0, size1)
    options = PairOptions(
        max_size=max_size, crops="never", matching=MatchingOptions(symmetric=True, subsample=4)
    )
    result = relief_matcher(pair).match(pair.image0, pair.image1, options=options)
    bias, count = bias_px(pair, result, options)
    assert count > 100
    assert np.abs(bias).max() < 0.1
    assert result.size0 == ImageSize(*size0)
    assert result.size1 == ImageSize(*size1)
    check_pose(pair, result.relative_pose(pair.camera0, pair.camera1), 0.5, 2.0)


@settings(max_examples=8)
@given(st.tuples(st.integers(90, 200), st.integers(90, 200)), st.integers(100, 220))
def test_no_bias_at_any_size(size, max_size):
    pair = cached_pair(size, (180, 140))
    options = PairOptions(
        max_size=max_size, crops="never", matching=MatchingOptions(symmetric=True, subsample=4)
    )
    result = relief_matcher(pair).match(pair.image0, pair.image1, options=options)
    bias, count = bias_px(pair, result, options)
    assert count > 80
    assert np.abs(bias).max() < 0.1


def test_pose_is_exact(pair):
    options = PairOptions(max_size=320, crops="never")
    result = relief_matcher(pair, options).match(pair.image0, pair.image1)
    assert len(result) > 800
    pose = result.relative_pose(pair.camera0, pair.camera1)
    check_pose(pair, pose, 0.15, 0.5)
    assert pose.num_inliers > 0.98 * len(result)


def test_crops_bring_full_resolution():
    pair = cached_pair((450, 600), (600, 450))
    options = PairOptions(max_size=192, crops="auto", max_crops=4)
    matcher = relief_matcher(pair, options)
    result = matcher.match(pair.image0, pair.image1)
    coarse_only = PairOptions(max_size=192, crops="never")
    coarse = matcher.match(pair.image0, pair.image1, options=coarse_only)
    # 2 for each coarse view, and 2 for each crop pair, of which there are at most 4.
    assert 6 <= matcher.network.num_encoded <= 2 + 8 + 2
    assert len(result) > 2 * len(coarse)

    errors = result.keypoints1.numpy() - pair.true_keypoints1(result.keypoints0.numpy())
    assert np.median(np.linalg.norm(errors, axis=1)) < 0.7
    assert np.abs(errors.mean(axis=0)).max() < 0.1
    check_pose(pair, result.relative_pose(pair.camera0, pair.camera1), 0.1, 0.3)


def test_nothing_credible_is_looked_at_closer(pair):
    coarse = relief_matcher(pair, SMALL_VIEW).match(pair.image0, pair.image1)
    middle, best = float(coarse.confidence.median()), float(coarse.confidence.max())
    assert best < 1
    for least, closer in ((middle, True), ((1 + best) / 2, False)):
        options = PairOptions(
            max_size=160, crops="always", matching=MatchingOptions(min_confidence=least)
        )
        matcher = relief_matcher(pair, options)
        result = matcher.match(pair.image0, pair.image1)
        assert (matcher.network.num_encoded > 2) == closer
        assert bool(len(result)) == closer


def test_crops_respect_the_mask():
    pair = cached_pair((450, 600), (600, 450))
    mask = np.zeros((450, 600), dtype=bool)
    mask[100:350, 150:400] = True
    options = PairOptions(max_size=192, crops="always", max_crops=3)
    result = relief_matcher(pair, options).match(pair.image0, pair.image1, mask0=mask)
    columns, lines = result.keypoints0.numpy().round().astype(int).T
    assert len(result) > 50
    assert mask[lines, columns].mean() > 0.99  # the mask's edge is exact to a network pixel


@pytest.mark.parametrize("crops", ["auto", "always", "never"])
def test_crop_modes_encode_what_they_say(pair, crops):
    matcher = relief_matcher(pair, PairOptions(max_size=320, crops=crops))
    matcher.match(pair.image0, pair.image1)
    assert (matcher.network.num_encoded == 2) == (crops != "always")


def test_kinds_of_input_agree(pair, matcher, tmp_path):
    paths = []
    for name, image in (("a.png", pair.image0), ("b.png", pair.image1)):
        Image.fromarray(image).save(tmp_path / name)
        paths.append(tmp_path / name)
    expected = rows(matcher.match(pair.image0, pair.image1))
    assert len(expected) > 200
    tensors = [torch.from_numpy(i).permute(2, 0, 1) for i in (pair.image0, pair.image1)]
    for kind in (
        paths,
        [str(path) for path in paths],
        [Image.open(path) for path in paths],
        tensors,
        [tensor.float() / 255 for tensor in tensors],
        [pair.image0.astype(np.float64) / 255, pair.image1.astype(np.uint16) * 257],
        [matcher.encode(pair.image0), paths[1]],
        [matcher.encode(pair.image0), matcher.encode(paths[1])],
    ):
        np.testing.assert_array_equal(rows(matcher.match(*kind)), expected)


def test_match_pairs_encodes_each_path_once(pair, tmp_path):
    paths = []
    for index, image in enumerate((pair.image0, pair.image1, pair.image0[::2, ::2])):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(image).save(paths[-1])
    pairs = [(paths[0], paths[1]), (paths[1], str(paths[2])), (paths[0], paths[2])]
    matcher = relief_matcher(pair, SMALL_VIEW)
    found = list(matcher.match_pairs(pairs))
    assert matcher.network.num_encoded == 3
    for result, (image0, image1) in zip(found, pairs, strict=True):
        np.testing.assert_array_equal(rows(result), rows(matcher.match(image0, image1)))


def test_match_pairs_encodes_nothing_twice_even_without_memory_to_keep_it(pair, tmp_path):
    for index in range(3):
        Image.fromarray(pair.image0).save(tmp_path / f"{index}.png")
    order = [(0, 1), (0, 2), (0, 1)]
    matcher = relief_matcher(pair, SMALL_VIEW)
    pairs = [(tmp_path / f"{one}.png", tmp_path / f"{two}.png") for one, two in order]
    nothing = MemoryLimits(device_bytes=0, host_bytes=0, disk_folder=tmp_path)
    found = list(matcher.match_pairs(pairs, memory=nothing))
    assert matcher.network.num_encoded == 3
    np.testing.assert_array_equal(rows(found[0]), rows(found[2]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]
    with pytest.raises(InputError, match="batch_size: expected at least 1, got 0"):
        matcher.match_pairs(pairs, batch_size=0)


def test_match_pairs_names_the_bad_image_when_its_turn_comes(pair, matcher, tmp_path):
    found = matcher.match_pairs(
        [(pair.image0, pair.image1), (pair.image0, tmp_path / "missing.png")]
    )
    assert len(next(found)) > 200
    with pytest.raises(InputError, match="image1: expected an image file, got no file at"):
        next(found)


@pytest.mark.parametrize("sizes", [((240, 320), (240, 320)), ((239, 317), (301, 215))])
def test_symmetric_matching_does_not_know_which_image_came_first(sizes):
    pair = cached_pair(*sizes)
    matcher = relief_matcher(pair, SYMMETRIC)
    forward = rows(matcher.match(pair.image0, pair.image1))
    backward = matcher.match(pair.image1, pair.image0)
    mirrored = torch.column_stack(
        [backward.keypoints1, backward.keypoints0, backward.confidence]
    ).numpy()
    assert len(forward) > 300
    np.testing.assert_array_equal(forward, mirrored[np.lexsort(mirrored.T[::-1])])


def test_the_second_image_may_be_the_first(pair, matcher):
    found = matcher.match(pair.image1, pair.image0)
    keypoints0, keypoints1 = found.keypoints1.numpy(), found.keypoints0.numpy()
    kept = away_from_edges(keypoints0, (240, 320), 160)
    kept &= away_from_edges(keypoints1, (240, 320), 160)
    errors = keypoints1[kept] - pair.true_keypoints1(keypoints0[kept])
    assert kept.sum() > 150
    assert np.abs(errors.mean(axis=0)).max() < 0.1


def test_masks_of_both_sides_hold(pair, matcher):
    mask0 = np.zeros((240, 320), dtype=bool)
    mask0[:, 160:] = True
    mask1 = torch.zeros(240, 320, dtype=torch.bool)
    mask1[60:180] = True
    result = matcher.match(pair.image0, pair.image1, mask0=mask0, mask1=mask1)
    assert 20 < len(result) < len(matcher.match(pair.image0, pair.image1)) / 2
    assert float(result.keypoints0[:, 0].min()) >= 159.5
    # Sub-pixel refinement may move an end by a network pixel, which is two of the photograph.
    assert float(result.keypoints1[:, 1].min()) >= 57.5
    assert float(result.keypoints1[:, 1].max()) <= 181.5


def test_bad_masks_are_named(pair, matcher):
    with pytest.raises(InputError, match=r"mask1: expected bool of shape \(240, 320\), as"):
        matcher.match(pair.image0, pair.image1, mask1=np.ones((320, 240), dtype=bool))
    with pytest.raises(InputError, match="mask0: .*got uint8"):
        matcher.match(pair.image0, pair.image1, mask0=np.ones((240, 320), dtype=np.uint8))
    encoded = matcher.encode(pair.image0)
    with pytest.raises(InputError, match="mask0: expected None beside an encoded image"):
        matcher.match(encoded, pair.image1, mask0=np.ones((240, 320), dtype=bool))


def test_a_mask_given_to_encode_holds(pair, matcher):
    mask = np.zeros((240, 320), dtype=bool)
    mask[:120] = True
    encoded = matcher.encode(pair.image0, mask=mask)
    assert encoded.size == ImageSize(240, 320)
    expected = rows(matcher.match(pair.image0, pair.image1, mask0=mask))
    np.testing.assert_array_equal(rows(matcher.match(encoded, pair.image1)), expected)
    assert expected[:, 1].max() < 120


def test_confidence_and_keypoints_stay_in_range(pair, matcher, untrained):
    for found in (
        matcher.match(pair.image0, pair.image1),
        matcher.match(pair.image0, pair.image1, options=SYMMETRIC),
        untrained.match(pair.image0, pair.image1[:101, :67]),
    ):
        assert len(found) > 10
        assert 0 < float(found.confidence.min()) <= float(found.confidence.max()) <= 1
        for keypoints, size in (
            (found.keypoints0, found.size0),
            (found.keypoints1, found.size1),
        ):
            assert keypoints.dtype == torch.float32
            assert not keypoints.is_inference()
            assert float(keypoints.min()) >= 0
            assert float(keypoints[:, 0].max()) <= size.width - 1
            assert float(keypoints[:, 1].max()) <= size.height - 1


def test_confidence_of_the_relief(pair, matcher):
    """The geometric mean c of both ends, as c / (1 + c): both ends of a true match are equal."""
    found = matcher.match(pair.image0, pair.image1)
    assert float(found.confidence.min()) > 1.3 / 2.3 - 1e-3
    assert float(found.confidence.max()) < 1.7 / 2.7 + 1e-3


def test_top_k_and_min_confidence(pair, matcher):
    everything = matcher.match(pair.image0, pair.image1)
    for balance in (0, 8):
        chosen = MatchingOptions(top_k=50, balance=balance)
        options = PairOptions(max_size=160, crops="never", matching=chosen)
        found = matcher.match(pair.image0, pair.image1, options=options)
        assert len(found) == 50
        assert {tuple(row) for row in rows(found)} <= {tuple(row) for row in rows(everything)}
        if balance == 0:
            best = everything.confidence.sort(descending=True).values[:50]
            assert torch.equal(found.confidence.sort(descending=True).values, best)
        cells = (
            (found.keypoints0 / torch.tensor([40, 30])).floor().unique(dim=0, return_counts=True)
        )
        most_in_one_cell = int(cells[1].max())
        assert most_in_one_cell > 3 if balance == 0 else most_in_one_cell <= 2
    threshold = float(everything.confidence.median())
    chosen = MatchingOptions(min_confidence=threshold)
    options = PairOptions(max_size=160, crops="never", matching=chosen)
    kept = matcher.match(pair.image0, pair.image1, options=options)
    assert len(kept) == int((everything.confidence >= threshold).sum())


def test_pointmap_matching_without_descriptors(pair):
    """DUSt3R has no descriptors: its pixels match where their 3-D points do."""
    matcher = relief_matcher(pair, SMALL_VIEW, descriptors=False)
    result = matcher.match(pair.image0, pair.image1)
    errors = result.keypoints1.numpy() - pair.true_keypoints1(result.keypoints0.numpy())
    assert len(result) > 200
    assert np.abs(errors.mean(axis=0)).max() < 0.3  # whole network pixels, which are two here
    assert np.median(np.abs(errors)) < 1.2


def test_subpixel_refinement_helps(pair, matcher):
    def error(subpixel):
        options = PairOptions(max_size=160, crops="never", subpixel=subpixel)
        found = matcher.match(pair.image0, pair.image1, options=options)
        offset = found.keypoints1.numpy() - pair.true_keypoints1(found.keypoints0.numpy())
        return float(np.median(np.linalg.norm(offset, axis=1)))

    assert error(subpixel=True) < 0.6 * error(subpixel=False)


@pytest.mark.parametrize("side", [0, 1])
def test_a_blank_image_has_no_match_and_says_so(pair, matcher, side):
    blank = np.full((100, 150, 3), 131, dtype=np.uint8)
    images = [blank, pair.image1] if side == 0 else [pair.image0, blank]
    result = matcher.match(*images)
    assert len(result) == 0
    assert result.reason == f"image{side} is blank: all its values lie between 131 and 131"
    pose = result.relative_pose(pair.camera0, pair.camera1)
    assert pose.cam1_from_cam0 is None
    assert pose.reason == result.reason
    assert pose.inlier_mask.shape == (0,)


def test_an_empty_mask_leaves_nothing(pair, matcher):
    result = matcher.match(pair.image0, pair.image1, mask1=np.zeros((240, 320), dtype=bool))
    assert len(result) == 0
    assert result.reason == "the mask of image1 leaves nothing to match"


def test_identical_images_have_no_direction_of_translation(pair, matcher):
    result = matcher.match(pair.image0, pair.image0)
    assert len(result) > 250
    assert float((result.keypoints0 - result.keypoints1).abs().max()) < 0.6  # noise of the 8 bits
    pose = result.relative_pose(pair.camera0, pair.camera0)
    assert pose.cam1_from_cam0 is None
    assert "taken from the same place" in pose.reason


def test_unrelated_images_have_no_pose(untrained):
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (96, 96, 3), dtype=np.uint8) for _ in range(2)]
    result = untrained.match(*images)
    pose = result.relative_pose()
    assert pose.cam1_from_cam0 is None
    assert pose.num_inliers == 0
    assert len(pose.reason) > 20


def test_one_pixel_is_no_photograph(pair, matcher):
    with pytest.raises(InputError, match="image0: expected a photograph, got an image of 1 x 1"):
        matcher.match(np.zeros((1, 1, 3), dtype=np.uint8), pair.image1)


@pytest.mark.parametrize("shape", [(1, 40, 3), (700, 1, 3), (2, 2, 3), (16, 1200, 3)])
@pytest.mark.parametrize("crops", ["auto", "always"])
def test_slivers_give_few_or_no_matches_but_no_error(pair, untrained, shape, crops):
    sliver = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    options = PairOptions(max_size=96, crops=crops, max_crops=2)
    for images in ((sliver, pair.image1), (pair.image0, sliver)):
        result = untrained.match(*images, options=options)
        assert (len(result) == 0) == (result.reason is not None)
        assert len(result.relative_pose().inlier_mask) == len(result)


def test_same_input_same_answer(pair, untrained):
    first = rows(untrained.match(pair.image0, pair.image1))
    np.testing.assert_array_equal(rows(untrained.match(pair.image0, pair.image1)), first)


def test_the_callers_arrays_are_left_alone(pair, untrained):
    image0, image1 = pair.image0.copy(), pair.image1.copy()
    untrained.match(image0, image1).draw()
    np.testing.assert_array_equal(image0, pair.image0)
    np.testing.assert_array_equal(image1, pair.image1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_size": 16}, "max_size: expected at least 32 pixels, got 16"),
        ({"crops": "often"}, "crops: expected auto or always or never, got 'often'"),
        ({"max_crops": 0}, "max_crops: expected at least 1, got 0"),
        ({"maximum": 3}, "options: expected names among .*, got maximum"),
    ],
)
def test_bad_options(values, words):
    with pytest.raises(InputError, match=words):
        PairOptions.from_dict(values)


def test_options_survive_json():
    options = PairOptions(matching=MatchingOptions(top_k=7, symmetric=True), max_size=64)
    assert PairOptions.from_dict(options.to_dict()) == options


@pytest.mark.parametrize("device", ["nowhere", "cuda:77", "meta", 3.5])
def test_a_device_that_is_not_here(device):
    with pytest.raises(InputError, match="device: expected a device of this machine"):
        Matcher.from_pretrained("small", device=device)


def test_an_encoding_made_in_one_precision_is_decoded_in_the_other(untrained) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    coarse = PairOptions(max_size=96, crops="never", precision="bfloat16")
    encoded = Matcher(untrained.network, untrained.info, coarse).encode(pixels)
    assert encoded.encoded.tokens.dtype == torch.float32
    assert untrained.match(encoded, encoded).pointmaps.points0.dtype == np.float32


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_precision_on_a_gpu_follows_its_generation(monkeypatch, capability, expected) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    multiplies = pair_inference.multiplies_bfloat16.__wrapped__
    assert multiplies(torch.device("cuda")) is expected


@pytest.mark.parametrize("multiplies", [False, True])
def test_precision_follows_the_processor(untrained, monkeypatch, multiplies: bool) -> None:
    has_amx = "_is_amx_tile_supported"
    monkeypatch.setattr(torch.cpu, has_amx, lambda: multiplies, raising=False)
    monkeypatch.setattr(
        pair_inference, "multiplies_bfloat16", pair_inference.multiplies_bfloat16.__wrapped__
    )
    random = np.random.default_rng(2)
    one, two = (random.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(2))
    chosen, named = (
        untrained.match(one, two, options=PairOptions(max_size=96, crops="never", precision=name))
        for name in ("auto", "bfloat16" if multiplies else "float32")
    )
    assert torch.equal(chosen.keypoints1, named.keypoints1)
    assert np.array_equal(chosen.pointmaps.points0, named.pointmaps.points0)


def test_pointmaps_are_left_out_on_request(untrained) -> None:
    """And nothing else changes."""
    random = np.random.default_rng(1)
    one, two = (random.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(2))
    whole, lean = untrained.match(one, two), untrained.match(one, two, keep_pointmaps=False)
    assert whole.pointmaps is not None
    assert lean.pointmaps is None
    assert torch.equal(whole.keypoints0, lean.keypoints0)
    assert torch.equal(whole.keypoints1, lean.keypoints1)
    (from_many,) = untrained.match_pairs([(one, two)], keep_pointmaps=False)
    assert from_many.pointmaps is None
    assert torch.equal(from_many.keypoints1, lean.keypoints1)


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="precision: expected auto or float32 or bfloat16"):
        PairOptions(precision="float16")
