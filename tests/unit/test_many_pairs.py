from __future__ import annotations

import os
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

import matcher.encoding_cache
import matcher.pair_inference
from matcher import InputError, Matcher, MatchingOptions, PairOptions
from matcher.checkpoints import CheckpointInfo
from matcher.encoding_cache import EncodingCache, MemoryLimits
from matcher.geometry.pose import rotation_error_deg
from matcher.images import read_image
from matcher.many_pairs import FailedPair
from matcher.photographs import Photographs
from matcher.structures import Pose
from tests.relief import ReliefNetwork, relief_pair

SIZES = ((96, 128), (128, 96), (96, 112))
OPTIONS = PairOptions(max_size=128, crops="never", matching=MatchingOptions(subsample=8))
NAMES = tuple(f"{size}{camera}.png" for size in range(len(SIZES)) for camera in range(2))
COMPLETE = tuple(combinations(NAMES, 2))


class Network(ReliefNetwork):
    """Notes how many pairs are decoded together, and may run out of memory."""

    def __init__(self, poses):
        super().__init__(poses)
        self.batches = []
        self.most_pairs = 1000
        self.error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.encode_errors = []

    def encode_each(self, images):
        if self.encode_errors:
            raise self.encode_errors.pop()
        return super().encode_each(images)

    def decode_each(self, views0, views1, *, points=True):
        self.batches.append(len(views0))
        assert (
            len({(one.shape_key, two.shape_key) for one, two in zip(views0, views1, strict=True)})
            == 1
        )
        if len(views0) > self.most_pairs:
            raise self.error
        return super().decode_each(views0, views1, points=points)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Six photographs of the relief, of three shapes; pose 1 from 0."""
    folder = tmp_path_factory.mktemp("collection")
    for index, size in enumerate(SIZES):
        pair = relief_pair(size, size)
        Image.fromarray(pair.image0).save(folder / f"{index}0.png")
        Image.fromarray(pair.image1).save(folder / f"{index}1.png")
    return Photographs.from_folder(folder), pair.cam1_from_cam0


@pytest.fixture
def found_by(collection):
    network = Network((Pose.identity(), collection[1]))
    return Matcher(network, CheckpointInfo("relief", "CC0-1.0"), OPTIONS)


@pytest.fixture(scope="module")
def expected(collection):
    network = Network((Pose.identity(), collection[1]))
    one_by_one = Matcher(network, CheckpointInfo("relief", "CC0-1.0"), OPTIONS)
    photographs = collection[0]
    return {names: table(one_by_one.match(*map(photographs.path, names))) for names in COMPLETE}


def table(result):
    matches = result.matches
    return torch.column_stack([matches.keypoints0, matches.keypoints1, matches.confidence]).numpy()


def shuffled(pairs, seed):
    return [pairs[index] for index in np.random.default_rng(seed).permutation(len(pairs))]


def paths(photographs, pairs):
    return [(photographs.path(one), photographs.path(two)) for one, two in pairs]


@pytest.mark.parametrize("host_bytes", [0, 400_000, 1 << 30])
@pytest.mark.parametrize("seed", [0, 1])
def test_n_photographs_cost_n_encodings_whatever_the_order(
    found_by, collection, expected, tmp_path, host_bytes, seed
):
    photographs, _ = collection
    pairs = shuffled(COMPLETE, seed)
    limits = MemoryLimits(host_bytes=host_bytes, disk_folder=tmp_path)
    with EncodingCache(limits) as cache:
        records = list(found_by.match_records(photographs, pairs, memory=cache))
        assert cache.peak_host_bytes <= host_bytes
        assert (cache.disk_bytes == 0) == (host_bytes == 1 << 30)
        assert cache.num_encoded == len(NAMES)
    assert found_by.network.num_encoded == len(NAMES)
    assert [record.names for record in records] == pairs
    for record in records:
        assert len(record) > 20
        np.testing.assert_array_equal(table(record), expected[record.names])
    assert list(tmp_path.iterdir()) == []


def test_results_are_those_of_match(found_by, collection, expected):
    photographs, pose = collection
    results = list(found_by.match_pairs(paths(photographs, COMPLETE)))
    for names, result in zip(COMPLETE, results, strict=True):
        np.testing.assert_array_equal(table(result), expected[names])
        np.testing.assert_array_equal(result.image0, read_image(photographs.path(names[0])))
        np.testing.assert_array_equal(result.image1, read_image(photographs.path(names[1])))
        assert result.pointmaps is not None
        assert 0 < result.seconds < 60
    different = results[COMPLETE.index(("00.png", "01.png"))]
    error = rotation_error_deg(different.relative_pose().cam1_from_cam0.rotation, pose.rotation)
    assert error < 3


def test_pairs_of_mixed_shapes_are_batched(found_by, collection, expected):
    photographs, _ = collection
    landscape, portrait = ("00.png", "01.png"), ("10.png", "11.png")
    pairs = [landscape, portrait] * 4
    records = list(found_by.match_records(photographs, pairs, batch_size=4))
    assert found_by.network.batches == [4, 4]
    assert [record.names for record in records] == pairs
    for record in records:
        np.testing.assert_array_equal(table(record), expected[record.names])


def test_a_small_cap_makes_small_batches(found_by, collection):
    photographs, _ = collection
    with EncodingCache() as cache:
        list(found_by.match_records(photographs, COMPLETE[:1], memory=cache))
        one = cache.seen(next(iter(cache._seen))).encoded_bytes
    found_by.network.batches.clear()
    pairs = [("00.png", "01.png"), ("01.png", "00.png"), ("00.png", "01.png")]
    for encodings, batches in ((1, [1, 1, 1]), (4, [3])):
        limits = MemoryLimits(host_bytes=encodings * one)
        assert len(list(found_by.match_records(photographs, pairs, memory=limits))) == 3
        assert found_by.network.batches == batches
        found_by.network.batches.clear()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried ..."),
        RuntimeError("CUDA error: out of memory"),
        MemoryError(),
    ],
)
def test_batches_are_halved_and_stay_so_when_memory_runs_out(
    found_by, collection, expected, error, caplog
):
    photographs, _ = collection
    found_by.network.most_pairs, found_by.network.error = 2, error
    pairs = [("00.png", "01.png"), ("01.png", "00.png")] * 6
    with EncodingCache() as cache:
        records = list(found_by.match_records(photographs, pairs, batch_size=8, memory=cache))
    assert found_by.network.batches == [8, 4, 2, 2, 2, 2, 2, 2]
    assert found_by.network.num_encoded == 2
    assert [record.names for record in records] == pairs
    np.testing.assert_array_equal(table(records[4]), expected["00.png", "01.png"])
    assert "memory ran out; 2 pairs at a time from now on" in caplog.text


def test_a_pair_too_large_for_memory_is_named(found_by, collection):
    photographs, _ = collection
    found_by.network.most_pairs = 0
    records = list(found_by.match_records(photographs, COMPLETE[:3], batch_size=1))
    assert [type(record) for record in records] == [FailedPair] * 3
    assert records[0].reason == (
        "pair: expected photographs that fit in memory, "
        "got CUDA out of memory. Tried to allocate 2 GiB"
    )
    with pytest.raises(InputError, match="pair: expected photographs that fit in memory"):
        next(found_by.match_pairs(paths(photographs, COMPLETE)))


def test_encoding_is_tried_again_once_there_is_room(found_by, collection):
    photographs, _ = collection
    full = torch.OutOfMemoryError("CUDA out of memory.")
    found_by.network.encode_errors = [full]
    assert len(next(found_by.match_pairs(paths(photographs, COMPLETE)))) > 20
    found_by.network.encode_errors = [full, full]
    with pytest.raises(InputError, match="image0: expected a photograph that fits in memory"):
        next(found_by.match_pairs(paths(photographs, COMPLETE)))


def test_other_errors_are_not_taken_for_a_lack_of_memory(found_by, collection):
    photographs, _ = collection
    found_by.network.most_pairs, found_by.network.error = 0, RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"):
        next(found_by.match_pairs(paths(photographs, COMPLETE)))
    assert len(found_by.network.batches) == 1
    found_by.network.encode_errors = [RuntimeError("no kernel")]
    with pytest.raises(RuntimeError, match="no kernel"):
        next(found_by.match_pairs(paths(photographs, COMPLETE)))


def test_a_broken_photograph_fails_its_pairs_and_is_read_once(
    found_by, collection, tmp_path, monkeypatch
):
    photographs, _ = collection
    broken, gone = tmp_path / "broken.jpg", tmp_path / "gone.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no more")
    good = photographs.path("00.png"), photographs.path("01.png")
    everything = Photographs(
        photographs.root, (*photographs.names, *(str(path) for path in (broken, gone)))
    )
    pairs = [("00.png", "01.png"), (str(broken), "01.png"), ("00.png", str(gone))]
    pairs += [("01.png", str(broken)), ("01.png", "00.png")]
    read = []

    def count(source, argument="image"):
        read.append(source)
        return read_image(source, argument)

    monkeypatch.setattr(matcher.pair_inference, "read_image", count)
    records = list(found_by.match_records(everything, pairs))
    assert [isinstance(record, FailedPair) for record in records] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert sorted(map(str, read)) == sorted(map(str, (*good, broken, gone)))
    assert records[1].reason.startswith("image0: expected an image file that Pillow reads, got")
    assert records[3].reason.startswith("image1: expected an image file that Pillow reads, got")
    assert records[2].reason == f"image1: expected an image file, got no file at {gone}"
    results = found_by.match_pairs(paths(everything, pairs))
    assert len(next(results)) > 20
    with pytest.raises(InputError, match="image0: expected an image file"):
        next(results)


def test_a_photograph_that_vanishes_on_the_way(found_by, collection, tmp_path):
    photographs, _ = collection
    for name in NAMES[:3]:
        (tmp_path / name).write_bytes(photographs.path(name).read_bytes())
    mine = Photographs.from_folder(tmp_path)
    crops = PairOptions(max_size=96, crops="always", matching=OPTIONS.matching)
    records = found_by.match_records(
        mine,
        [("00.png", "01.png"), ("00.png", "10.png"), ("01.png", "00.png"), ("10.png", "01.png")],
        options=crops,
        memory=MemoryLimits(host_bytes=0),
        batch_size=2,
    )
    assert len(next(records)) > 20  # the third pair went with it, so the second is encoded
    (tmp_path / "10.png").unlink()
    late = next(records)
    assert isinstance(late, FailedPair)
    assert late.reason.startswith("photograph: expected an image file, got no file at")
    assert len(next(records)) > 20
    assert next(records).reason.startswith("image0: expected an image file, got no file at")


def test_crops_come_out_the_same_without_memory(found_by, collection):
    photographs, _ = collection
    crops = PairOptions(max_size=96, crops="always", matching=OPTIONS.matching)
    pairs = COMPLETE[:4]
    few = MemoryLimits(host_bytes=1000)
    one = list(found_by.match_records(photographs, pairs, options=crops, memory=few))
    two = list(found_by.match_records(photographs, pairs, options=crops))
    for record, same in zip(one, two, strict=True):
        np.testing.assert_array_equal(table(record), table(same))


def test_arrays_are_encoded_each_time_and_not_kept(found_by, collection, expected):
    photographs, _ = collection
    images = [read_image(photographs.path(name)) for name in ("00.png", "01.png")]
    with EncodingCache() as cache:
        results = found_by.match_pairs([tuple(images)] * 3, memory=cache, batch_size=2)
        for result in results:
            np.testing.assert_array_equal(table(result), expected["00.png", "01.png"])
            assert len(cache) <= 6
        assert (cache.num_encoded, len(cache), cache.host_bytes) == (6, 0, 0)


def test_a_call_that_is_left_early_leaves_no_array_behind(found_by, collection, expected):
    photographs, _ = collection
    images = [read_image(photographs.path(name)) for name in ("00.png", "01.png", "10.png")]
    with EncodingCache() as cache:
        asked = [(images[0], images[1]), (images[0], images[2])]
        results = found_by.match_pairs(asked, memory=cache)
        np.testing.assert_array_equal(table(next(results)), expected["00.png", "01.png"])
        results.close()
        assert len(cache) == 0
        (other,) = found_by.match_pairs([(images[0], images[2])], memory=cache)
        np.testing.assert_array_equal(table(other), expected["00.png", "10.png"])


def test_a_file_that_was_written_anew_is_encoded_anew(found_by, collection, expected, tmp_path):
    photographs, _ = collection
    path = tmp_path / "query.png"
    with EncodingCache() as cache:
        for number, name in enumerate(("01.png", "10.png")):
            path.write_bytes(photographs.path(name).read_bytes())
            os.utime(path, ns=(0, number))
            (found,) = found_by.match_pairs([(photographs.path("00.png"), path)], memory=cache)
            np.testing.assert_array_equal(table(found), expected["00.png", name])
        assert cache.num_encoded == 3


def test_encoded_images_are_taken_as_they_are(found_by, collection, expected):
    photographs, _ = collection
    mask = np.zeros(SIZES[0], dtype=bool)
    mask[:, :64] = True
    encoded = found_by.encode(photographs.path("00.png"))
    masked = found_by.encode(photographs.path("00.png"), mask=mask)
    other = photographs.path("01.png")
    one, two = found_by.match_pairs([(encoded, other), (masked, other)])
    assert found_by.network.num_encoded == 3
    np.testing.assert_array_equal(table(one), expected["00.png", "01.png"])
    assert 0 < len(two) < len(one)
    assert float(two.keypoints0[:, 0].max()) < 66


def test_calls_may_share_a_cache(found_by, collection):
    photographs, _ = collection
    with EncodingCache() as cache:
        for _ in range(2):
            assert len(list(found_by.match_records(photographs, COMPLETE, memory=cache))) == 15
        assert found_by.network.num_encoded == len(NAMES)
        larger = PairOptions(max_size=160, crops="never", matching=OPTIONS.matching)
        next(found_by.match_records(photographs, COMPLETE, options=larger, memory=cache))
        assert found_by.network.num_encoded > len(NAMES)  # other views, so other encodings


def test_one_file_by_two_names_is_encoded_once(found_by, collection, tmp_path, monkeypatch):
    photographs, _ = collection
    monkeypatch.chdir(photographs.root)
    first, second = photographs.path("00.png"), photographs.path("01.png")
    list(found_by.match_pairs([(first, second), ("00.png", str(second)), ("./00.png", second)]))
    assert found_by.network.num_encoded == 2


def test_what_came_before_an_error_of_the_caller_is_answered(found_by, collection):
    photographs, _ = collection

    def asked():
        yield from COMPLETE[:2]
        raise OSError("the list ends here")

    records = found_by.match_records(photographs, asked())
    assert [len(next(records)) > 20 for _ in range(2)] == [True, True]
    with pytest.raises(OSError, match="the list ends here"):
        next(records)
    with pytest.raises(InputError, match="pairs: expected two photographs each, got 00.png twice"):
        list(found_by.match_records(photographs, [("00.png", "00.png")]))
    with pytest.raises(InputError, match="photograph: expected a name among the 6"):
        list(found_by.match_records(photographs, [("00.png", "7.png")]))


def test_pairs_are_taken_as_they_are_needed(found_by, collection):
    photographs, _ = collection
    taken = []

    def asked():
        for names in COMPLETE:
            taken.append(names)
            yield names

    records = found_by.match_records(photographs, asked(), batch_size=1)
    next(records)
    assert len(taken) == 1
    records.close()
    assert found_by.network.num_encoded == 2


def test_blank_photographs_and_no_pairs_at_all(found_by, collection, tmp_path):
    photographs, _ = collection
    assert list(found_by.match_records(photographs, [])) == []
    Image.new("RGB", (128, 96), (9, 9, 9)).save(tmp_path / "blank.png")
    (result,) = found_by.match_pairs([(photographs.path("00.png"), tmp_path / "blank.png")])
    assert result.reason == "image1 is blank: all its values lie between 9 and 9"
    assert result.image1.shape == (96, 128, 3)
    assert result.pointmaps is None


def test_pointmaps_are_left_out_on_request(found_by, collection):
    photographs, _ = collection
    (record,) = found_by.match_records(photographs, COMPLETE[:1], keep_pointmaps=False)
    assert record.pointmaps is None
    (record,) = found_by.match_records(photographs, COMPLETE[:1])
    assert record.pointmaps.points0.shape == (96, 128, 3)
