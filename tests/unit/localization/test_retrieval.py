"""The retrieval index: the nearest show the same place, and its file is whole or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from matcher import CheckpointInfo, DatasetError, InputError
from matcher.localization.retrieval import DEFAULT_INDEX_NAME, RetrievalIndex, image_descriptor
from matcher.photographs import Photographs

INFO = CheckpointInfo("small", "Apache-2.0", sha256="a" * 64)


def unit(angles_deg):
    angles = np.radians(angles_deg)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture
def index():
    names = ("a.jpg", "b.jpg", "sub/c.jpg", "d.jpg")
    return RetrievalIndex(names, unit([0, 10, 50, 65]), INFO.name, INFO.licence, INFO.sha256)


def test_the_nearest_come_first(index):
    found = index.query(unit([12])[0], 3)
    assert [number for number, _ in found] == [1, 0, 2]
    assert found[0][1] == pytest.approx(np.cos(np.radians(2)), abs=1e-6)
    assert len(index.query(unit([12])[0], 99)) == 4
    with pytest.raises(InputError, match=r"descriptor: expected shape \(2,\)"):
        index.query(np.zeros(3), 1)


def test_pairs_are_the_nearest_of_each_once(index):
    assert index.pairs(1) == [(0, 1), (2, 3)]
    assert index.pairs(2) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    assert len(index.pairs(99)) == 6
    with pytest.raises(InputError, match="k: expected at least 1, got 0"):
        index.pairs(0)


def test_copies_of_a_photograph_do_not_hide_it_from_others():
    index = RetrievalIndex(tuple("abcd"), unit([20, 20, 20, 90]), "", "", "")
    assert index.pairs(1) in ([(0, 1), (0, 2), (0, 3)], [(0, 1), (1, 2), (0, 3)]) or all(
        any(number in pair for pair in index.pairs(1)) for number in range(4)
    )
    assert all(first != second for first, second in index.pairs(2))


def test_one_photograph_has_no_pairs():
    assert RetrievalIndex(("a",), unit([0]), "", "", "").pairs(3) == []


def test_a_saved_index_is_the_same(index, tmp_path):
    path = tmp_path / DEFAULT_INDEX_NAME
    index.save(path)
    loaded = RetrievalIndex.load(path, INFO)
    assert loaded.names == index.names
    np.testing.assert_array_equal(loaded.descriptors, index.descriptors)
    assert (loaded.model, loaded.licence, loaded.sha256) == ("small", "Apache-2.0", "a" * 64)
    assert loaded.subset(["d.jpg", "a.jpg"]).query(unit([0])[0], 1) == [(1, 1.0)]


def test_another_models_index_is_refused(index, tmp_path):
    index.save(tmp_path / "index.npz")
    other = CheckpointInfo("other", sha256="b" * 64)
    with pytest.raises(InputError, match="small .a{12}., which made .* got other"):
        RetrievalIndex.load(tmp_path / "index.npz", other)


@pytest.mark.parametrize("damage", ["cut", "flip", "other", "empty", "foreign"])
def test_a_broken_file_is_refused(index, tmp_path, damage):
    path = tmp_path / "index.npz"
    index.save(path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-200])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign":
        np.savez(path, descriptors=index.descriptors)
    elif damage == "flip":
        # Through NumPy, so that the archive's own checksum is right.
        with np.load(path) as stored:
            header, descriptors = stored["header"], stored["descriptors"].copy()
        descriptors[0, 0] += 0.5
        np.savez(path, descriptors=descriptors, header=header)
    else:
        with np.load(path) as stored:
            header, descriptors = json.loads(str(stored["header"])), stored["descriptors"]
        header["format"] = 99
        np.savez(path, descriptors=descriptors, header=np.array(json.dumps(header)))
    with pytest.raises(DatasetError, match="a broken retrieval index"):
        RetrievalIndex.load(path)
    with pytest.raises(DatasetError, match="no retrieval index at"):
        RetrievalIndex.load(tmp_path / "absent.npz")


def test_an_unwritable_place_is_refused(index, tmp_path):
    with pytest.raises(InputError, match="a file that can be written"):
        index.save(tmp_path / "absent" / "index.npz")


def test_descriptors_are_checked():
    with pytest.raises(InputError, match=r"shape \(2, C\)"):
        RetrievalIndex(("a", "b"), unit([0]), "", "", "")
    with pytest.raises(InputError, match="finite"):
        RetrievalIndex(("a",), np.full((1, 2), np.nan, np.float32), "", "", "")


def test_building_encodes_each_photograph_once(scene, matcher):
    photographs = Photographs.from_folder(scene.folder / "images")
    seen = []
    index = RetrievalIndex.build(
        matcher, photographs, progress=lambda done, count: seen.append((done, count))
    )
    assert matcher.network.num_encoded == len(photographs) == 5
    assert seen == [(number, 5) for number in range(1, 6)]
    assert index.names == photographs.names
    np.testing.assert_allclose(np.linalg.norm(index.descriptors, axis=1), 1, rtol=1e-5)
    # The photographs were taken along an arc: neighbours resemble each other most.
    assert index.pairs(1) == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_the_descriptor_is_the_spread_of_each_channel(matcher, scene):
    encoded = matcher.encode(scene.images[0])
    tokens = encoded.encoded.tokens[0].numpy()
    spread = tokens.std(axis=0)
    np.testing.assert_allclose(
        image_descriptor(encoded), spread / np.linalg.norm(spread), rtol=1e-4, atol=1e-6
    )
    assert image_descriptor(encoded).dtype == np.float32
    assert isinstance(encoded.encoded.tokens, torch.Tensor)
