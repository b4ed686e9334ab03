"""hloc's files, read back as hloc reads them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from matcher.errors import InputError, MissingDependencyError
from matcher.export.hloc import write_hloc
from matcher.export.verification import VerificationOptions
from matcher.pair_records import PairRecord
from matcher.pairing import read_pairs
from matcher.photographs import Photographs
from tests.unit.export.relief_records import (
    CAMERA,
    empty_record,
    name,
    record,
    records,
    true_gaps,
)

h5py = pytest.importorskip("h5py")

OPTIONS = VerificationOptions(max_error=0.005)
KNOWN = {name(index): CAMERA for index in range(3)}


def test_keypoints_and_matches_are_where_hloc_looks(tmp_path: Path) -> None:
    photographs = Photographs(tmp_path, (name(0), name(1), name(2), name(8), name(9)))
    made = write_hloc(
        [*records(3), empty_record(0, 8)],
        tmp_path / "hloc",
        photographs=photographs,
        cameras=KNOWN,
        cell_px=8.0,
        options=OPTIONS,
    )
    assert (made.num_pairs, made.num_verified) == (4, 3)
    assert list(made.unmatched) == [name(8)]
    assert sorted(path.name for path in (tmp_path / "hloc").iterdir()) == [
        "features.h5",
        "matches.h5",
        "pairs.txt",
    ]
    pairs = read_pairs(tmp_path / "hloc" / "pairs.txt")
    assert pairs == [(name(0), name(1)), (name(0), name(2)), (name(1), name(2))]
    with h5py.File(tmp_path / "hloc" / "features.h5") as features:
        keypoints = {one: features[one]["keypoints"][()] for one in photographs.names}
        assert features[name(0)]["image_size"][()].tolist() == [320, 240]
        scores = features[name(0)]["scores"][()]
    assert keypoints[name(0)].dtype == np.float32
    # Integer = pixel centre, as hloc has it: no half pixel is added.
    np.testing.assert_array_equal(keypoints[name(0)], made.tracks.keypoints[0].astype(np.float32))
    assert scores.shape == (len(keypoints[name(0)]),)
    assert 0.5 < scores.min() <= scores.max() <= 1.0
    assert [len(keypoints[name(index)]) for index in (8, 9)] == [0, 0]
    with h5py.File(tmp_path / "hloc" / "matches.h5") as matches:
        group = matches["sub-00.jpg"]["sub-02.jpg"]
        partner, confidence = group["matches0"][()], group["matching_scores0"][()]
    assert partner.shape == confidence.shape == (len(keypoints[name(0)]),)
    assert np.issubdtype(partner.dtype, np.signedinteger)
    rows = np.flatnonzero(partner != -1)
    assert 200 < len(rows) < len(partner)
    assert (confidence[partner == -1] == 0).all()
    gaps = true_gaps(
        keypoints[name(0)][rows].astype(np.float64),
        keypoints[name(2)][partner[rows]].astype(np.float64),
        (0, 2),
    )
    assert np.median(gaps) < 0.1


def test_nothing_matched_writes_empty_files(tmp_path: Path) -> None:
    made = write_hloc([empty_record(0, 1)], tmp_path)
    assert made.names == (name(0), name(1))
    with h5py.File(tmp_path / "matches.h5") as matches:
        assert len(matches) == 0
    assert read_pairs(tmp_path / "pairs.txt") == []


def test_a_full_disk_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "features.h5").write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matcher.export.hloc._write_matches", full)
    with pytest.raises(InputError, match="folder that can be written.*No space left"):
        write_hloc(records(2), tmp_path, options=OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["features.h5"]
    assert (tmp_path / "features.h5").read_bytes() == b"old"


def test_names_that_hloc_confuses_are_refused(tmp_path: Path) -> None:
    pair = record(0, 1, rng=np.random.default_rng(0))
    odd = PairRecord("sub/00.jpg", "sub-00.jpg", pair.matches, pair.size0, pair.size1)
    with pytest.raises(InputError, match="differ in more than / and -"):
        write_hloc([odd], tmp_path, options=OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"widebase\[hloc\]"):
        write_hloc([], tmp_path)
