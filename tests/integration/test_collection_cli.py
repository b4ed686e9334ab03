from __future__ import annotations

import shutil

import pytest
from PIL import Image

from matcher import MatchStore
from matcher.pairing import read_pairs
from tests.relief import relief_pair

pytestmark = pytest.mark.usefixtures("relief_model")
RELIEF = ("--model", "relief", "--max-size", 128, "--crops", "never")


@pytest.fixture(scope="session")
def gallery(tmp_path_factory):
    """Three photographs of the relief and a duplicate."""
    folder = tmp_path_factory.mktemp("gallery")
    landscape, portrait = relief_pair((96, 128), (96, 128)), relief_pair((128, 96), (128, 96))
    Image.fromarray(landscape.image0).save(folder / "a.png")
    Image.fromarray(landscape.image1).save(folder / "b.png")
    Image.fromarray(portrait.image1).save(folder / "c.png")
    shutil.copy(folder / "b.png", folder / "d.png")
    return folder


@pytest.fixture
def pair_file(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("a.png b.png\na.png c.png\nb.png c.png\nb.png a.png\n")
    return path


def listed(run, out):
    assert run.status == 0, run.err
    return run.out, [" ".join(names) for names in read_pairs(out)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["a b", "a c", "a d", "b c", "b d", "c d"]),
        (("--window", 1), ["a b", "b c", "c d"]),
        (("--window", 1, "--cyclic"), ["a b", "a d", "b c", "c d"]),
        (("--one-to-all", "c.png"), ["a c", "b c", "c d"]),
    ],
)
def test_pairs_of_a_folder(widebase, gallery, tmp_path, options, expected):
    out = tmp_path / "pairs.txt"
    said, found = listed(widebase("pairs", gallery, "--out", out, *options), out)
    assert [names.replace(".png", "") for names in found] == expected
    assert said.splitlines()[0].startswith(f"{len(expected)} pairs of 4 photographs (")
    assert said.splitlines()[1:] == ["d.png is a duplicate of b.png", f"wrote {out}"]


def test_pairs_by_retrieval(widebase, gallery, tmp_path, tiny_checkpoint):
    out = tmp_path / "pairs.txt"
    run = widebase(
        "pairs", gallery, "--out", out, "--retrieval", 1, "--model", tiny_checkpoint, "--json"
    )
    assert (run.status, run.err) == (0, "")
    names = read_pairs(out)
    assert ("b.png", "d.png") in names  # nothing looks more like it than its duplicate
    assert {name for both in names for name in both} == {"a.png", "b.png", "c.png", "d.png"}
    assert run.json == {
        "out": str(out),
        "photographs": 4,
        "pairs": len(names),
        "duplicates": [["b.png", "d.png"]],
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--window", 0), "--window: expected at least 1, got 0"),
        (("--retrieval", 0), "--retrieval: expected at least 1, got 0"),
        (("--one-to-all", "no.png"), "--one-to-all: expected a photograph in"),
        (("--cyclic",), "--cyclic: expected --window beside it"),
        (("--window", 1, "--retrieval", 2), "expected one of them at most, got 2"),
    ],
)
def test_pairs_refuses_what_it_cannot_do(widebase, gallery, tmp_path, options, words):
    run = widebase("pairs", gallery, "--out", tmp_path / "pairs.txt", *options)
    assert run.status == 2
    assert words in run.err
    assert run.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_pairs_needs_photographs_and_a_place(widebase, gallery, tmp_path):
    out = tmp_path / "pairs.txt"
    for folder, words in (
        (tmp_path, "folder: expected photographs"),
        (tmp_path / "no", "folder: expected a folder of photographs"),
    ):
        run = widebase("pairs", folder, "--out", out)
        assert (run.status, words in run.err) == (2, True)
    shutil.copy(gallery / "a.png", tmp_path)
    run = widebase("pairs", tmp_path, "--out", out)
    assert (run.status, "expected at least two photographs, got 1 in" in run.err) == (2, True)
    run = widebase("pairs", gallery, "--out", tmp_path / "no" / "pairs.txt")
    assert (run.status, "--out: expected a file in a folder that exists" in run.err) == (2, True)


def test_run_goes_on_where_it_stopped(widebase, gallery, pair_file, tmp_path):
    store = tmp_path / "store"
    some = tmp_path / "some.txt"
    some.write_text("a.png b.png\n")
    command = ("run", "--images", gallery, "--out", store, *RELIEF, "--json")
    first = widebase(*command, some)
    assert (first.status, first.err) == (0, "")
    assert first.json == {
        "store": str(store),
        "pairs": 1,
        "matched": 1,
        "without_matches": 0,
        "failed": [],
        "damaged": [],
        "duplicates": [],
        "encodings": 2,
        "resumed": 0,
        "seconds": first.json["seconds"],
        "model": "relief",
        "licence": "CC0-1.0",
    }
    second = widebase(*command, pair_file).json
    assert (second["pairs"], second["matched"], second["resumed"]) == (3, 3, 1)
    assert second["encodings"] == 3
    third = widebase(*command, pair_file).json
    assert (third["matched"], third["resumed"], third["encodings"]) == (3, 3, 0)
    opened = MatchStore.open(store)
    assert opened.pair_names() == [("a.png", "b.png"), ("a.png", "c.png"), ("b.png", "c.png")]
    assert all(len(record) > 50 and record.pointmaps is None for record in opened.records())
    assert opened.photographs.root == gallery.resolve()


def test_run_keeps_pointmaps_on_request(widebase, gallery, pair_file, tmp_path):
    store = tmp_path / "store"
    widebase(
        "run", pair_file, "--images", gallery, "--out", store, *RELIEF, "--pointmaps", "float16"
    )
    assert [r.pointmaps.points0.shape[2] for r in MatchStore.open(store).records()] == [3, 3, 3]


def test_run_goes_past_photographs_that_cannot_be_read(widebase, gallery, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(gallery, images)
    (images / "broken.png").write_bytes(b"broken")
    Image.new("RGB", (128, 96), (7, 7, 7)).save(images / "blank.png")
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("broken.png a.png\na.png b.png\na.png gone.png\na.png blank.png\nd.png c.png")
    command = ("run", pairs, "--images", images, "--out", tmp_path / "store", *RELIEF)
    run = widebase(*command)
    assert run.status == 0
    lines = run.out.splitlines()
    assert lines[0] == "2 of 5 pairs have matches, 1 have none, 2 failed"
    assert lines[1].startswith("broken.png a.png: image0: expected an image file that Pillow reads")
    assert lines[2].startswith("a.png gone.png: image1: expected an image file, got no file at")
    assert lines[3] == "d.png is a duplicate of b.png"
    assert lines[4].startswith("5 encodings, 0 pairs were there already; ")
    shutil.copy(gallery / "b.png", images / "gone.png")
    again = widebase(*command, "--json").json  # what failed is tried again
    assert [failure["pair"] for failure in again["failed"]] == [["broken.png", "a.png"]]
    assert (again["matched"], again["resumed"], again["encodings"]) == (3, 3, 2)
    assert again["duplicates"] == [["b.png", "gone.png"], ["b.png", "d.png"]]


def test_run_without_any_match_exits_with_3(widebase, tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (128, 96), (7, 7, 7)).save(tmp_path / name)
    (tmp_path / "pairs.txt").write_text("a.png b.png")
    run = widebase(
        "run", tmp_path / "pairs.txt", "--images", tmp_path, "--out", tmp_path / "store", *RELIEF
    )
    assert run.status == 3
    assert run.out.startswith("0 of 1 pairs have matches, 1 have none, 0 failed")
    (record,) = MatchStore.open(tmp_path / "store").records()
    assert record.reason == "image0 is blank: all its values lie between 7 and 7"


def test_an_interrupted_run_leaves_a_valid_store(
    widebase, gallery, pair_file, tmp_path, monkeypatch
):
    store = tmp_path / "store"
    command = ("run", pair_file, "--images", gallery, "--out", store, *RELIEF, "--batch-size", 1)
    add = MatchStore.add

    def interrupted(self, record):
        if len(self) == 1:
            raise KeyboardInterrupt
        add(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(MatchStore, "add", interrupted)
        run = widebase(*command)
    assert run.status == 130
    assert run.err == (
        f"error: interrupted; {store} holds 1 pairs: the same command goes on from there\n"
    )
    assert len(list(MatchStore.open(store).records())) == 1
    again = widebase(*command, "--json").json
    assert (again["matched"], again["resumed"]) == (3, 1)


def test_a_damaged_pair_is_named_and_done_again(widebase, gallery, pair_file, tmp_path):
    store = tmp_path / "store"
    command = ("run", pair_file, "--images", gallery, "--out", store, *RELIEF, "--json")
    widebase(*command)
    file = sorted((store / "pairs").glob("*/*"))[0]
    file.write_bytes(file.read_bytes()[:-1])
    run = widebase(*command)
    assert (run.status, run.json["resumed"], len(run.json["damaged"])) == (0, 2, 1)
    assert f"damaged, to be matched again: {' '.join(run.json['damaged'][0])}" in run.err
    assert widebase(*command).json["resumed"] == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--max-size", 96), "store: expected max_size 96, as asked, got a store written with 128"),
        (("--images", "no"), "--images: expected a folder of photographs, got no"),
        (("--cache-folder", "no"), "disk_folder: expected a folder that exists, got no"),
        (("--images", "/"), "--images: expected the photographs of"),
    ],
)
def test_run_refuses_what_it_cannot_do(widebase, gallery, pair_file, tmp_path, changes, words):
    command = ("run", pair_file, "--images", gallery, "--out", tmp_path / "store", *RELIEF)
    widebase(*command)
    run = widebase(*command, *changes)
    assert run.status == 2
    assert words in run.err
    assert run.err.count("\n") == 1


def test_run_needs_pairs(widebase, gallery, tmp_path):
    pairs = tmp_path / "pairs.txt"
    for content, words in (
        ("# nothing\n", "PAIRS: expected at least one pair, got none in"),
        ("a.png\n", "pairs file: expected two names a line"),
        ("a.png a.png\n", "pairs: expected two photographs each, got a.png twice"),
    ):
        pairs.write_text(content)
        run = widebase("run", pairs, "--images", gallery, "--out", tmp_path / "store", *RELIEF)
        assert (run.status, words in run.err) == (2, True)
