"""Files for the command line: a tiny checkpoint, photographs, and ``widebase`` in this process."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from matcher.checkpoints import CheckpointInfo, save_native
from matcher.cli import main
from matcher.model import ModelConfig, TwoViewNetwork
from tests.relief import ReliefPair, relief_matcher, relief_pair


@dataclasses.dataclass(frozen=True)
class Run:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        assert self.out.count("\n") == 1
        values: dict[str, Any] = json.loads(self.out)
        return values


@pytest.fixture
def widebase(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Run]:
    """Runs the program as a shell would, but in this process: importing torch takes seconds."""

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["widebase", *map(str, arguments)])
        # The program sets up logging once; here it must not outlive the captured streams.
        handlers = logging.root.handlers[:]
        status = 0
        try:
            main()
        except SystemExit as leaving:
            status = 0 if leaving.code is None else int(leaving.code)
        finally:
            logging.root.handlers[:] = handlers
        captured = capfd.readouterr()
        return Run(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network in our own format."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    info = CheckpointInfo("tiny", licence="CC0-1.0", notes="untrained")
    save_native(path, TwoViewNetwork(ModelConfig.tiny()), info)
    return path


@pytest.fixture(scope="session")
def relief() -> ReliefPair:
    return relief_pair()


@pytest.fixture(scope="session")
def photographs(relief: ReliefPair, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("photographs")
    paths = folder / "a.png", folder / "b.png"
    for path, image in zip(paths, (relief.image0, relief.image1), strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture
def relief_model(monkeypatch: pytest.MonkeyPatch, relief: ReliefPair) -> None:
    """``--model relief`` is the stand-in network, which finds true matches."""
    from matcher.cli import pair_verbs

    load = pair_verbs.load_matcher

    def load_relief(model: str, device: str | None, options: Any) -> Any:
        return (
            relief_matcher(relief, options) if model == "relief" else load(model, device, options)
        )

    monkeypatch.setattr(pair_verbs, "load_matcher", load_relief)
