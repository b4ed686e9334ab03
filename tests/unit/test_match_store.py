from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

import matcher.store_folder
from matcher import (
    CheckpointInfo,
    DatasetError,
    ImageSize,
    InputError,
    Matches,
    MatchingOptions,
    MatchStore,
    PairOptions,
    Photographs,
)
from matcher.many_pairs import FailedPair
from matcher.match_store import distinct_pairs
from matcher.pair_records import PairRecord
from matcher.pointmaps import Pointmaps
from matcher.record_files import pack_record, unpack_record

INFO = CheckpointInfo("small", "CC0-1.0", is_metric=True, sha256="ab" * 32)
OPTIONS = PairOptions(max_size=320, matching=MatchingOptions(top_k=50))
NAMES = ("a.jpg", "b.jpg", "sub/c.jpg", "ü .jpg")


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes(f"bytes of {name}".encode())
    return Photographs(folder, NAMES)


@pytest.fixture
def new(tmp_path, photographs):
    def begin(**changes):
        arguments = {"info": INFO, "options": OPTIONS} | changes
        return MatchStore.resume(tmp_path / "store", photographs, **arguments)

    return begin


def record(name0="a.jpg", name1="b.jpg", num_matches=30, *, maps=True, seed=0):
    random = np.random.default_rng(seed)

    def points(*shape):
        return random.normal(0, 5, shape).astype(np.float32)

    keypoints = [torch.from_numpy(points(num_matches, 2)) for _ in range(2)]
    confidence = torch.from_numpy(random.uniform(0.1, 1, num_matches).astype(np.float32))
    pointmaps = Pointmaps(
        points(6, 8, 3),
        points(8, 4, 3),
        np.exp(points(6, 8)),
        np.exp(points(8, 4)),
        np.diag([2.1, 2.2, 1]),
        np.diag([3.1, 3.2, 1]),
        points(8, 4, 3),
    )
    return PairRecord(
        name0,
        name1,
        Matches(*keypoints, confidence),
        ImageSize(12, 16),
        ImageSize(24, 13),
        0.25,
        None if num_matches else "no two places agreed",
        pointmaps if maps else None,
    )


def check_equal(found, expected):
    assert found.names == expected.names
    for name in ("keypoints0", "keypoints1", "confidence"):
        assert torch.equal(getattr(found.matches, name), getattr(expected.matches, name))
    for name in ("size0", "size1", "overlap_score", "reason"):
        assert getattr(found, name) == getattr(expected, name)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0), ("float16", 1e-3)])
def test_pointmaps_are_as_exact_as_they_say(precision, tolerance):
    expected = record()
    packed = pack_record(expected, precision)
    found = unpack_record(packed)
    check_equal(found, expected)
    for entry in dataclasses.fields(Pointmaps):
        one, two = getattr(found.pointmaps, entry.name), getattr(expected.pointmaps, entry.name)
        assert one.dtype == two.dtype
        np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(
        found.pointmaps.original1_from_network, expected.pointmaps.original1_from_network
    )
    assert unpack_record(packed, keep_pointmaps=False).pointmaps is None
    assert pack_record(expected, precision) == packed


def test_records_without_pointmaps_or_matches():
    for expected in (record(num_matches=0), record(maps=False)):
        found = unpack_record(pack_record(expected, "none"))
        check_equal(found, expected)
        assert found.pointmaps is None
    large = dataclasses.replace(record().pointmaps, confidence0=np.full((6, 8), 1e9, np.float32))
    found = unpack_record(
        pack_record(dataclasses.replace(record(), pointmaps=large), "float16")
    ).pointmaps
    assert found.confidence0.max() == 65504
    with pytest.raises(InputError, match="pair file: expected the record of a pair"):
        unpack_record(b"nonsense")


def test_what_was_added_is_read_again(new, tmp_path, photographs):
    first, second = record(seed=1), record("ü .jpg", "sub/c.jpg", 0, seed=2)
    with new(pointmaps="float32") as store:
        store.add(first)
        store.add(second)
        assert len(list(store.records())) == 2
    store = MatchStore.open(tmp_path / "store")
    assert store.pair_names() == [("a.jpg", "b.jpg"), ("ü .jpg", "sub/c.jpg")]
    for found, expected in zip(store.records(), (first, second), strict=True):
        check_equal(found, expected)
        np.testing.assert_array_equal(found.pointmaps.points1, expected.pointmaps.points1)
    assert [r.pointmaps for r in store.records(keep_pointmaps=False)] == [None, None]
    assert (store.model, store.licence, store.info, store.options) == (
        "small",
        "CC0-1.0",
        INFO,
        OPTIONS,
    )
    assert store.photographs == Photographs(photographs.root.resolve(), NAMES)
    assert store.num_matches("b.jpg", "a.jpg") == 30
    assert (len(store), store.pointmaps, store.damaged) == (2, "float32", [])
    with pytest.raises(InputError, match="pair: expected one of the 2 of .*got a.jpg sub/c.jpg"):
        store.record("a.jpg", "sub/c.jpg")
    with pytest.raises(InputError, match="store: expected a store opened with create or resume"):
        store.add(first)


def test_both_orders_are_one_pair(new):
    pairs = [("a.jpg", "b.jpg"), ("sub/c.jpg", "a.jpg"), ("b.jpg", "a.jpg"), ("a.jpg", "b.jpg")]
    assert distinct_pairs(pairs) == pairs[:2]
    with new() as store:
        assert store.missing(pairs) == pairs[:2]
        store.add(record("b.jpg", "a.jpg"))
        assert ("a.jpg", "b.jpg") in store
        assert store.missing(pairs) == [("sub/c.jpg", "a.jpg")]
        again = record("a.jpg", "b.jpg", 7)
        store.add(again)  # takes the place of the first
        assert (len(store), store.pair_names()) == (1, [("a.jpg", "b.jpg")])
        check_equal(store.record("b.jpg", "a.jpg"), again)
    assert store.verify() == []


def test_failures_are_kept_until_a_success(new, tmp_path):
    with new() as store:
        store.add_failure(FailedPair("a.jpg", "b.jpg", "image0: broken"))
        store.add_failure(FailedPair("a.jpg", "sub/c.jpg", "image0: broken"))
        assert store.missing([("a.jpg", "b.jpg")]) == [("a.jpg", "b.jpg")]
    with new() as store:
        assert [failure.name1 for failure in store.failures()] == ["b.jpg", "sub/c.jpg"]
        store.add(record())
    store = MatchStore.open(tmp_path / "store")
    assert store.failures() == [FailedPair("a.jpg", "sub/c.jpg", "image0: broken")]
    assert store.pair_names() == [("a.jpg", "b.jpg")]


def journal(tmp_path):
    return tmp_path / "store" / "journal.jsonl"


def pair_files(tmp_path):
    return sorted((tmp_path / "store" / "pairs").glob("*/*.safetensors"))


def test_cut_off_at_any_byte_the_journal_is_valid(new, tmp_path):
    with new() as store:
        store.add(record())
        first = len(journal(tmp_path).read_bytes())
        store.add(record("a.jpg", "sub/c.jpg"))
    whole = journal(tmp_path).read_bytes()
    for length in range(0, len(whole) + 1, 7):
        journal(tmp_path).write_bytes(whole[:length])
        assert len(MatchStore.open(tmp_path / "store")) == (length >= first) + (
            length == len(whole)
        )
    journal(tmp_path).write_bytes(whole[:-5])
    with new() as store:
        assert len(store) == 1
        store.add(record("a.jpg", "sub/c.jpg"))
    assert journal(tmp_path).read_bytes() == whole
    assert len(list(MatchStore.open(tmp_path / "store").records())) == 2


def test_a_damaged_line_is_reported_and_its_pair_is_missing(new, tmp_path, caplog):
    with new() as store:
        for name in NAMES[1:]:
            store.add(record("a.jpg", name))
    content = journal(tmp_path).read_bytes()
    journal(tmp_path).write_bytes(content.replace(b"sub/c", b"sub/d"))
    with new() as store:
        assert store.missing([("a.jpg", name) for name in NAMES[1:]]) == [("a.jpg", "sub/c.jpg")]
    assert "1 damaged lines in" in caplog.text


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_pair_is_found_reported_and_done_again(new, tmp_path, caplog, how):
    with new() as store:
        store.add(record(seed=1))
        (file,) = pair_files(tmp_path)
        store.add(record("a.jpg", "sub/c.jpg", seed=2))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(content if how == "flipped" else content[:-10])
    reader = MatchStore.open(tmp_path / "store")
    with pytest.raises(
        DatasetError, match=r"the stored pair a.jpg b.jpg is damaged \(.*safetensors"
    ):
        reader.record("a.jpg", "b.jpg")
    assert reader.damaged == [("a.jpg", "b.jpg")]
    reader = MatchStore.open(tmp_path / "store")
    assert [found.names for found in reader.records()] == [("a.jpg", "sub/c.jpg")]
    assert "the stored pair a.jpg b.jpg is damaged" in caplog.text
    with new() as store:
        assert store.damaged == [("a.jpg", "b.jpg")]
        assert store.missing([("a.jpg", "b.jpg"), ("a.jpg", "sub/c.jpg")]) == [("a.jpg", "b.jpg")]
        store.add(record(seed=1))
    with new() as store:
        assert (store.damaged, len(store)) == ([], 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"info": CheckpointInfo("large", sha256="cd" * 32)},
            r"expected model large \(cdcd.*\), as asked, got a store written with small \(abab",
        ),
        ({"info": dataclasses.replace(INFO, sha256="cd" * 32)}, "expected model small"),
        (
            {"options": PairOptions(max_size=512, matching=MatchingOptions(top_k=50))},
            "store: expected max_size 512, as asked, got a store written with 320",
        ),
        (
            {"options": PairOptions(max_size=320)},
            "expected matching.top_k None, as asked, got a store written with 50",
        ),
        ({"pointmaps": "float32"}, "expected pointmaps float32, as asked, got .* with none"),
        ({"pointmaps": "float64"}, "pointmaps: expected none or float16 or float32, got 'float64'"),
    ],
)
def test_a_store_of_another_model_or_other_options_is_refused(new, changes, words):
    with new() as store:
        store.add(record())
    with pytest.raises(InputError, match=words):
        new(**changes)
    with new() as store:  # the refusal let go of the lock and changed nothing
        assert len(store) == 1


def test_photographs_may_be_added_but_not_changed(new, tmp_path, photographs):
    few = Photographs(photographs.root, (*NAMES[:2], "later.jpg"))
    MatchStore.create(tmp_path / "store", few, INFO, OPTIONS).close()
    (photographs.root / "later.jpg").write_bytes(b"is there now")
    with new() as store:
        assert store.photographs.names == (*NAMES[:2], "later.jpg", *NAMES[2:])
        store.add(record("a.jpg", "sub/c.jpg"))
        with pytest.raises(InputError, match="record: expected photographs that .* got no.jpg"):
            store.add(record("a.jpg", "no.jpg"))
    MatchStore.resume(tmp_path / "store", few, INFO, OPTIONS).close()
    (photographs.root / "b.jpg").write_bytes(b"another photograph")
    with pytest.raises(InputError, match="that did not change .* got b.jpg, which did"):
        new()


def test_the_photographs_may_move(new, tmp_path, photographs):
    with new() as store:
        store.add(record())
    moved = photographs.root.rename(tmp_path / "moved")
    assert MatchStore.open(tmp_path / "store", images=moved).photographs.root == moved.resolve()
    with MatchStore.resume(tmp_path / "store", Photographs(moved, NAMES), INFO, OPTIONS) as store:
        assert len(store) == 1
    assert MatchStore.open(tmp_path / "store").photographs.root == moved.resolve()
    with pytest.raises(InputError, match="images: expected a folder of photographs"):
        MatchStore.open(tmp_path / "store", images=tmp_path / "no")


def test_two_writers_are_detected(new, tmp_path, photographs):
    with new() as store:
        with pytest.raises(InputError, match="store: expected a folder that nobody else writes to"):
            new()
        store.add(record())
        assert len(MatchStore.open(tmp_path / "store")) == 1
    with new() as store:
        assert len(store) == 1


def test_a_full_disk_leaves_the_store_as_it_was(new, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with new() as store:
        store.add(record(seed=1))
        before = journal(tmp_path).read_bytes()
        real = matcher.store_folder.os.write
        for name, fake in (
            ("write", lambda file, data: full() if len(data) < 99 else real(file, data[:50])),
            ("fsync", full),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(matcher.store_folder.os, name, fake)
                with pytest.raises(InputError, match=r"store: .*store: No space left on device"):
                    store.add(record("a.jpg", "sub/c.jpg"))
                with pytest.raises(InputError, match="No space left on device"):
                    store.add_failure(FailedPair("a.jpg", "ü .jpg", "no"))
            assert journal(tmp_path).read_bytes() == before
            assert (store.pair_names(), store.failures()) == ([("a.jpg", "b.jpg")], [])
        assert list((tmp_path / "store").rglob("*.tmp")) == []
        store.add(record("a.jpg", "sub/c.jpg"))
    with new() as store:
        assert (len(store), store.damaged) == (2, [])


KILLED = """
    import os, signal, sys, threading
    from pathlib import Path
    from tests.unit.test_match_store import INFO, NAMES, OPTIONS, record
    from matcher import MatchStore, Photographs
    photographs = Photographs(Path(sys.argv[2]), NAMES)
    with MatchStore.resume(sys.argv[1], photographs, INFO, OPTIONS, pointmaps="float32") as store:
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        number = 0
        while True:
            store.add(record(NAMES[number % 3], NAMES[3], 5000, seed=number))
            number += 1
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills as Unix does")
@pytest.mark.slow
def test_killed_at_any_moment_the_store_is_valid(new, tmp_path, photographs):
    for _ in range(2):
        arguments = [tmp_path / "store", photographs.root]
        killed = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLED), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            timeout=300,
        )
        assert killed.returncode == -9, killed.stderr.decode()
        with new(pointmaps="float32") as store:
            # Between a replaced file and its line: then that pair is done again.
            assert len(store.damaged) <= 1
            assert 1 <= len(store) + len(store.damaged) <= 3
            for found in store.records():
                assert len(found) == 5000
        assert list((tmp_path / "store").rglob("*.tmp")) == []


def test_thousands_of_pairs_do_not_slow_it_down(tmp_path, monkeypatch):
    """Adding a pair writes a line, whatever is there already."""
    (tmp_path / "images").mkdir()
    names = tuple(f"{number}.jpg" for number in range(60))
    photographs = Photographs(tmp_path / "images", names)
    written = []
    real = matcher.store_folder.os.write
    monkeypatch.setattr(matcher.store_folder.os, "fsync", lambda file: None)
    monkeypatch.setattr(
        matcher.store_folder.os,
        "write",
        lambda file, data: written.append(len(data)) or real(file, data),
    )
    pairs = [(one, two) for one in names for two in names if one < two][:500]
    with MatchStore.create(tmp_path / "store", photographs, INFO, OPTIONS) as store:
        for names_ in pairs:
            store.add(record(*names_, 3, maps=False))
    assert len(written) == 500
    assert max(written) < 250
    assert MatchStore.open(tmp_path / "store").missing(pairs) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "store: expected a folder of matches, got .* without a readable manifest.json"),
        ("{}", "store: expected a manifest, got other text"),
        ("[1", "store: expected a manifest, got other text"),
        ('{"format": 9}', "store: expected format 1, got format 9"),
    ],
)
def test_what_is_no_store_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=words):
        MatchStore.open(tmp_path)


def test_a_store_begins_in_an_empty_folder(tmp_path, photographs):
    with pytest.raises(InputError, match="store: expected a folder that is empty or does not"):
        MatchStore.create(tmp_path, photographs, INFO, OPTIONS)
    with pytest.raises(InputError, match="store: expected a folder, got the file"):
        MatchStore.create(photographs.root / "a.jpg", photographs, INFO, OPTIONS)
    with pytest.raises(InputError, match="store: expected a folder that can be written to, got"):
        MatchStore.create(photographs.root / "a.jpg" / "b", photographs, INFO, OPTIONS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".manifest.json.77.tmp").write_text("ha")  # of a program that was killed
    MatchStore.create(tmp_path / "empty", photographs, INFO, OPTIONS).close()
    manifest = json.loads((tmp_path / "empty" / "manifest.json").read_text())
    assert manifest["model"] == {
        "name": "small",
        "licence": "CC0-1.0",
        "is_metric": True,
        "sha256": "ab" * 32,
    }
    assert [entry["name"] for entry in manifest["photographs"]] == list(NAMES)
    assert {len(entry["sha256"]) for entry in manifest["photographs"]} == {64}
