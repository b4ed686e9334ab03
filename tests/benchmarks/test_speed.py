from __future__ import annotations

import json
import sys

import cv2
import faiss
import numpy as np
import pytest
import torch

from benchmarks.speed import matching, memory, pair, suite
from benchmarks.speed.matching import MAPS, make_maps, search_with
from benchmarks.speed.memory import Peak, measure_peak, memory_tables, peak_resident_mib
from benchmarks.speed.network import _count_flops
from benchmarks.speed.photographs import photographs_of, render_photographs, write_pair
from benchmarks.speed.search import full_exact_matches
from benchmarks.speed.tables import SpeedRow, SpeedSettings, SpeedTable
from benchmarks.speed.timing import (
    Measurement,
    measure,
    measure_in_turns,
    pin_threads,
    speedup,
)
from matcher.errors import DatasetError, InputError, MatcherError
from matcher.images import read_image
from matcher.structures import ImageSize

pytestmark = pytest.mark.slow  # together more than a few seconds


@pytest.fixture(autouse=True)
def same_threads_afterwards():
    before = torch.get_num_threads(), cv2.getNumThreads(), faiss.omp_get_max_threads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])
    faiss.omp_set_num_threads(before[2])


def test_median_and_quartiles():
    values = Measurement.of([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (values.q25, values.median, values.q75) == (2.0, 3.0, 4.0)
    assert values.runs == (5.0, 1.0, 2.0, 4.0, 3.0)
    with pytest.raises(InputError, match="at least one"):
        Measurement.of([])


def test_warm_up_does_not_count_and_works_take_turns(monkeypatch):
    clock = iter(range(100))
    calls = []
    monkeypatch.setattr(
        "benchmarks.speed.timing.time.perf_counter", lambda: float(next(clock)) * 10
    )
    one, two = measure_in_turns(
        [lambda: calls.append("a"), lambda: calls.append("b")], warmup=2, repeats=3
    )
    assert "".join(calls) == "aabb" + "ab" + "ba" + "ab"
    assert one.runs == two.runs == (10.0, 10.0, 10.0)
    with pytest.raises(InputError, match="repeats"):
        measure(lambda: None, repeats=0)


def test_a_gpu_is_waited_for_before_and_after_every_run(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append(device))
    measure(lambda: events.append("work"), warmup=0, repeats=2, device="cuda:1")
    assert events == ["cuda:1", "work", "cuda:1"] * 2
    events.clear()
    measure(lambda: None, repeats=2)
    assert events == []


def test_speedup_compares_runs_of_one_round():
    reference, candidate = Measurement.of([2.0, 8.0, 6.0]), Measurement.of([1.0, 2.0, 1.0])
    assert speedup(reference, candidate).runs == (2.0, 4.0, 6.0)
    assert speedup(reference, candidate).median == 4.0
    with pytest.raises(InputError, match="3 runs"):
        speedup(reference, Measurement.of([1.0]))


def test_threads_are_pinned_and_said():
    assert pin_threads(1) == "threads: torch 1, OpenCV 1, FAISS 1"
    assert torch.get_num_threads() == 1
    with pytest.raises(InputError, match="threads"):
        pin_threads(0)


def test_a_table_as_markdown_and_as_json():
    slow, fast = Measurement.of([0.4]), Measurement.of([0.0123])
    table = SpeedTable(
        "Search",
        "the slow way",
        (
            SpeedRow("slow", slow),
            SpeedRow("fast", fast, speedup(slow, fast), {"matches": 12.0, "same %": 99.876}),
        ),
        note="On noise.",
    )
    assert table.to_markdown().splitlines() == [
        "### Search",
        "",
        "Reference: the slow way. On noise.",
        "",
        "|  | median ms | quartiles | times as fast | quartiles | matches | same % |",
        "|---|---:|---:|---:|---:|---:|---:|",
        "| slow | 400 | 400 to 400 | reference |  |  |  |",
        "| fast | 12.3 | 12.3 to 12.3 | 32.5 | 32.5 to 32.5 | 12 | 99.9 |",
    ]
    plain = json.loads(json.dumps(table.to_dict()))
    assert plain["rows"][1]["value"]["runs"] == [0.0123]
    assert plain["rows"][0]["against_reference"] is None


def test_complete_comparison_finds_all_mutual_neighbours():
    maps = make_maps(MAPS[1], height=20, width=24)
    rows0, rows1 = (one.flatten(0, 1).double() for one in maps)
    product = rows0 @ rows1.T
    forward, backward = product.argmax(1), product.argmax(0)
    expected = [(i, int(j)) for i, j in enumerate(forward) if backward[j] == i]
    assert len(expected) > 50
    found = [tuple(row) for row in full_exact_matches(maps).tolist()]
    assert found == expected
    assert [tuple(row) for row in search_with("cells", maps, 1).tolist()] == expected


def test_operations_of_attention_are_counted():
    query = torch.rand(1, 2, 16, 8)

    def attend():
        torch.nn.functional.scaled_dot_product_attention(query, query, query)

    assert _count_flops(attend) == 2 * (2 * 2 * 16 * 16 * 8)


@pytest.mark.slow
def test_rendered_photographs_show_one_scene(tmp_path):
    paths = render_photographs(tmp_path, 3, ImageSize(96, 128))
    images = [read_image(path).astype(float) for path in paths]
    assert [image.shape for image in images] == [(96, 128, 3)] * 3
    assert min(image.std() for image in images) > 10
    assert np.abs(images[0] - images[1]).mean() > 2
    assert photographs_of(tmp_path, 2) == paths[:2]
    again = tmp_path / "again"
    again.mkdir()
    render_photographs(again, 3, ImageSize(96, 128))
    assert (again / "001.jpg").read_bytes() == paths[1].read_bytes()


def test_a_folder_without_photographs_is_an_error(tmp_path):
    (tmp_path / "one.jpg").touch()
    with pytest.raises(DatasetError, match="at least 2"):
        photographs_of(tmp_path, 8)
    with pytest.raises(DatasetError, match="no folder"):
        photographs_of(tmp_path / "absent", 8)


def test_the_sample_pair_keeps_its_cameras_when_resized(tmp_path):
    pytest.importorskip("skimage")
    from matcher.sample_pairs import motorcycle_pair

    files, (camera0, _) = write_pair(tmp_path, ImageSize(250, 494))
    assert read_image(files[0]).shape == (250, 494, 3)
    original = motorcycle_pair().camera0
    assert camera0.focals == pytest.approx(
        (original.focals[0] * 494 / 741, original.focals[1] * 250 / 500)
    )
    assert camera0.principal_point[1] == pytest.approx(
        (original.principal_point[1] + 0.5) / 2 - 0.5
    )


def test_peak_memory_grows_with_what_is_held():
    before = peak_resident_mib()
    held = np.ones((200, 2**20), dtype=np.uint8)
    assert peak_resident_mib() >= 200
    del held
    assert peak_resident_mib() >= before


def test_a_case_runs_in_a_process_of_its_own():
    peak = measure_peak("libraries", SpeedSettings(threads=1))
    assert 50 < peak.resident < 4000
    assert peak.gpu == 0


def test_a_case_that_fails_says_why(monkeypatch):
    failed = memory.subprocess.CompletedProcess([], 1, "", "Traceback\nInputError: no such model\n")
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(MatcherError, match=r"'pair': the process failed \(InputError: no such"):
        measure_peak("pair", SpeedSettings())


def test_memory_is_told_beside_sift(monkeypatch):
    peaks = {"sift": 200.0, "libraries": 100.0, "model": 300.0, "pair": 500.0}
    monkeypatch.setattr(memory, "measure_peak", lambda case, _: Peak(peaks[case], 7.0))
    (table,) = memory_tables(SpeedSettings(repeats=2, device="cuda"))
    assert table.unit == "MiB"
    assert table.reference.startswith("SIFT on a pair of 512 x 384")
    ratios = [row.against_reference.median for row in table.rows[1:]]
    assert ratios == [0.5, 1.5, 2.5, 2.5]
    assert table.rows[3].extras == {"above the reference MiB": 300.0, "GPU MiB": 7.0}


def test_a_quick_run_writes_every_table_with_its_provenance(tmp_path, monkeypatch, capsys):
    pytest.importorskip("skimage")
    monkeypatch.setattr(memory, "measure_peak", lambda *_: Peak(100.0, 0.0))
    out = tmp_path / "speed.json"
    suite.main(["--quick", "--threads", "1", "--out", str(out)])
    said = capsys.readouterr().out
    assert said.startswith("device cpu; threads: torch 1, OpenCV 1, FAISS 1; warm-up 1")
    assert "the numbers mean nothing" in said
    written = json.loads(out.read_text())
    assert written["provenance"]["threads"] == 1
    assert written["provenance"]["versions"]["torch"] == torch.__version__
    titles = [table["title"] for table in written["tables"]]
    for part in ("Network at", "Network against", "Reciprocal", "All mutual", "Two files", "All p"):
        assert any(title.startswith(part) for title in titles), part
    assert all(table["reference"] for table in written["tables"])
    assert said.count("\n### ") == len(titles) == 7
    for table in written["tables"]:
        assert all(row["value"]["median"] > 0 for row in table["rows"])
    seeds = next(table for table in written["tables"] if table["title"].startswith("Recipr"))
    assert [row["extras"]["in common %"] for row in seeds["rows"]] == [100.0] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suites", "network,sorting"], "suites: expected names among network, search"),
        (["--size", "512"], "size: expected width x height"),
        (["--threads", "0"], "threads: expected at least 1"),
        (["--suites", "folder", "--quick", "--root", "absent"], "no folder absent"),
        (["--out", "absent/speed.json"], "out: expected a file in a folder that exists"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, message):
    with pytest.raises(SystemExit) as caught:
        suite.main(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_here_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="device: expected a device that is here"):
        suite.main(["--device", "cuda"])


def test_the_single_measurements_still_run(monkeypatch, capsys):
    pytest.importorskip("skimage")
    arguments = ["--size", "128x96", "--repeats", "1", "--threads", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["pair", *arguments])
    pair.main()
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["seconds"]) == {"encode", "match", "pose", "files to pose"}
    assert printed["peak_mib"] > 50
    matching.main(["--threads", "1", "--maps"])
    assert "floor: 3072 seeds" in capsys.readouterr().out
