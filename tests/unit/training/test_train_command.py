"""``widebase train`` in the process of the test."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from matcher.cli import main
from matcher.training.config import TrainConfig

Make = Callable[..., TrainConfig]
Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``widebase train`` with arguments and gives its exit status."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["widebase", "train", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return call


@pytest.fixture
def config_file(toy: Make, tmp_path: Path) -> Path:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(toy().to_dict()))
    return path


def test_train_resume_and_json(
    run: Run, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    assert run("--config", config_file, "--out", out, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] == str(out / "model.safetensors")
    assert answer["curve"] == str(out / "curve.png")
    assert answer["last"]["step"] >= 1
    assert 3 < answer["last"]["losses"]["matching_error"] < 60
    assert (out / "curve.png").stat().st_size > 5000

    spent = answer["last"]["minutes"]
    assert run("--out", out, "--resume", "--max-minutes", spent + 0.01, "--json") == 0
    later = json.loads(capsys.readouterr().out)
    assert later["last"]["step"] > answer["last"]["step"]
    assert later["last"]["minutes"] >= spent + 0.01

    assert run("--out", out, "--config", config_file) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: output_dir: expected a folder without a run")
    assert len(error.splitlines()) == 1


def test_options_override_the_file_and_matplotlib_is_not_needed(
    run: Run,
    config_file: Path,
    tmp_path: Path,
    pool: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    out = tmp_path / "out"
    arguments = ["--config", config_file, "--out", out, "--scenes", pool, "--max-minutes", 0.005]
    arguments += ["--image-size", 32, "--batch-size", 1, "--seed", 5, "--threads", 1]
    assert run(*arguments, "--from-scratch") == 0
    text = capsys.readouterr().out
    assert text.strip().replace("\n", "") == f"wrote {out / 'model.safetensors'}"
    assert not (out / "curve.png").exists()
    used = TrainConfig.from_dict(json.loads((out / "config.json").read_text()))
    assert (used.seed, used.max_minutes, used.initialise) == (5, 0.005, "random")
    assert [(stage.image_size, stage.batch_size) for stage in used.stages] == [(32, 1)]
    assert used.data.scene_pools == (str(pool),)
    assert used.data.num_matches == 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{not json", "--config: expected JSON"),
        (b"\xff\xfe\x00\x81", "--config: expected JSON"),
        (b"[1]", "--config: expected a JSON object"),
        (b'{"learning_rat": 1}', "train config: expected a complete configuration"),
        (b'{"max_minutes": -1}', "max_minutes: expected a positive number, got -1"),
        (b'{"initialise": "random"}', "--data, --photos, --scenes, --pairs, --views: expected"),
        (None, "--config: expected a config.json"),
    ],
)
def test_a_bad_configuration_is_one_line_and_status_2(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    message: str,
) -> None:
    if content is not None:
        (tmp_path / "bad.json").write_bytes(content)
    assert run("--config", tmp_path / "bad.json", "--out", tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {message}")
    assert len(printed.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_mistakes_in_the_options_are_one_line_and_status_2(
    run: Run, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for arguments, message in (
        (("--resume",), "--resume: expected a run in --out"),
        (("--config", config_file, "--batch-size", 2), "--batch-size: expected --image-size"),
        (("--config", config_file, "--device", "abacus"), "device: expected a device"),
        (("--config", config_file, "--photos", tmp_path / "no"), "photos: expected photographs"),
    ):
        assert run("--out", out, *arguments) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(f"error: {message}")
        assert len(printed.err.splitlines()) == 1
        assert not out.exists()
