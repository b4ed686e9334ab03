"""The picture of the curve."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from matcher.errors import DatasetError, MissingDependencyError
from matcher.training.plot import plot_log


def record(step: int, **changes: Any) -> dict[str, Any]:
    losses = {"matching_error": 5.0 / step, "pointmap_error": None if step == 3 else 1.0 / step}
    values = {
        "minutes": 0.1 * step,
        "learning_rate": 1e-4 * step,
        "pairs_per_second": 3.0,
        "losses": losses,
        "validation": None,
    }
    return {**values, **changes}


def write(path: Path, *records: Any) -> Path:
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in records))
    return path


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    shares = {"within_1px": 0.2, "within_3px": 0.4, "within_10px": 0.6}
    lines = [
        *(record(step) for step in range(1, 6)),
        record(6, validation=shares),
        '{"minutes": 0.',
    ]
    plot_log(write(tmp_path / "log.jsonl", *lines), tmp_path / "curve.png")
    picture = cv2.imread(str(tmp_path / "curve.png"))
    assert picture is not None
    assert picture.shape == (660, 1100, 3)
    assert 0.003 < (picture < 200).mean() < 0.3  # ink


def test_a_batch_without_depth_is_a_gap_and_not_a_zero(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    def drawn(error: float, pixels: int) -> Any:
        losses = {"matching_error": 1.0, "pointmap_error": error, "num_pixels": pixels}
        lines = [record(1), record(2, losses=losses), record(4)]
        plot_log(write(tmp_path / "log.jsonl", *lines), tmp_path / "curve.png")
        return cv2.imread(str(tmp_path / "curve.png"))

    silent = drawn(0.0, 0)
    assert (silent == drawn(7.0, 0)).all()
    assert (silent != drawn(0.0, 90)).any()


def test_an_empty_log_gives_empty_axes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_log(write(tmp_path / "log.jsonl"), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "line",
    [
        '{"minutes": 0.',
        "[1, 2]",
        {"minutes": 1.0},
        record(2, minutes="two"),
        record(2, losses={"matching_error": 1.0}),
        record(2, validation={"within_1px": 0.5}),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: Any) -> None:
    pytest.importorskip("matplotlib")
    log = write(tmp_path / "log.jsonl", record(1), line, record(3))
    with pytest.raises(DatasetError, match=r"log\.jsonl:2: ") as caught:
        plot_log(log, tmp_path / "curve.png")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "curve.png").exists()


def test_a_missing_or_binary_log_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(DatasetError, match="cannot be read"):
        plot_log(tmp_path / "log.jsonl", tmp_path / "curve.png")
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DatasetError, match="expected lines of JSON"):
        plot_log(tmp_path / "log.jsonl", tmp_path / "curve.png")


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingDependencyError, match=r"widebase\[plot\]"):
        plot_log(write(tmp_path / "log.jsonl", record(1)), tmp_path / "curve.png")
