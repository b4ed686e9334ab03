"""From files to a reconstruction, with a matcher that knows the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from matcher.alignment.options import PointmapOptions
from matcher.alignment.reconstruct import reconstruct
from matcher.checkpoints import CheckpointInfo
from matcher.errors import InputError
from matcher.many_pairs import FailedPair
from matcher.pair_records import PairRecord
from matcher.photographs import Photographs
from matcher.pipeline import Matcher, PairOptions
from tests.unit.alignment.hilly_scene import SIZE, Hills

SCENE = Hills.on_arc((0.0, 10.0, 22.0))
INFO = CheckpointInfo(name="known", licence="none")


@dataclass
class KnowingMatcher:
    """Answers with the true matches; remembers what it was asked."""

    is_metric: bool = False
    unreadable: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    symmetric: bool = False
    options: PairOptions = field(default_factory=PairOptions)

    @property
    def info(self) -> CheckpointInfo:
        return replace(INFO, is_metric=self.is_metric)

    def match_records(
        self,
        photographs: Photographs,
        pairs: Sequence[tuple[str, str]],
        *,
        options: PairOptions,
    ) -> Iterator[PairRecord | FailedPair]:
        self.symmetric = options.matching.symmetric
        generator = np.random.default_rng(0)
        for name0, name1 in pairs:
            self.asked.append((name0, name1))
            if self.unreadable in (name0, name1):
                yield FailedPair(name0, name1, f"{self.unreadable}: not an image")
                continue
            indices = int(name0[0]), int(name1[0])
            record = SCENE.record(*indices, generator, with_pointmaps=self.is_metric)
            yield replace(record, name0=name0, name1=name1)


def folder_of(path: Path, count: int) -> Path:
    for index in range(count):
        picture = np.full((SIZE.height, SIZE.width, 3), 60 * (index + 1), np.uint8)
        assert cv2.imwrite(str(path / f"{index}.png"), picture)
    return path


def run(matcher: KnowingMatcher, images: Any, **arguments: Any) -> Any:
    return reconstruct(cast(Matcher, matcher), images, **arguments)


def test_all_pairs_are_matched_both_ways_and_coloured(tmp_path: Path) -> None:
    matcher = KnowingMatcher()
    steps: list[tuple[int, int]] = []
    folder = folder_of(tmp_path, 3)
    cameras = {f"{index}.png": SCENE.camera for index in range(3)}
    found = run(matcher, folder, cameras=cameras, progress=lambda *step: steps.append(step))
    assert matcher.asked == [("0.png", "1.png"), ("0.png", "2.png"), ("1.png", "2.png")]
    assert matcher.symmetric
    assert found.names == ("0.png", "1.png", "2.png")
    assert (found.model, found.licence, found.is_metric) == ("known", "none", False)
    assert steps[-1] == (4, 4)
    assert set(np.unique(found.points.colors)) <= set(range(60, 181))


def test_copies_are_matched_once_and_listed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 3)
    (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
    matcher = KnowingMatcher()
    pairs = [("0.png", "1.png"), ("copy.png", "0.png"), ("1.png", "2.png"), ("1.png", "copy.png")]
    found = run(matcher, folder, pairs=pairs)
    assert matcher.asked == [("0.png", "1.png"), ("1.png", "2.png")]
    assert found.unregistered["copy.png"] == "same file as 1.png"


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    cameras = {f"{index}.png": SCENE.camera for index in range(3)}
    found = run(KnowingMatcher(unreadable="2.png"), folder_of(tmp_path, 3), cameras=cameras)
    assert found.names == ("0.png", "1.png")
    assert found.unregistered == {"2.png": "2.png: not an image"}


def test_one_photograph_is_not_enough(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 1)
    with pytest.raises(InputError, match="at least two different photographs"):
        run(KnowingMatcher(), folder)
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    with pytest.raises(InputError, match="at least two different photographs"):
        run(KnowingMatcher(), [folder / "0.png", folder / "copy.png"])


def test_metric_pointmaps_give_metres(tmp_path: Path) -> None:
    cameras = {f"{index}.png": SCENE.camera for index in range(3)}
    folder = folder_of(tmp_path, 3)
    found = run(KnowingMatcher(is_metric=True), folder, cameras=cameras)
    assert found.is_metric
    posed = run(
        KnowingMatcher(is_metric=True), folder, cameras=cameras, poses={"0.png": SCENE.poses[0]}
    )
    assert not posed.is_metric


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "dense"}, "sparse or pointmaps"),
        ({"options": PointmapOptions()}, "SparseOptions for sparse"),
        ({"pairs": [("0.png", "7.png")]}, r"7\.png"),
        ({"pairs": []}, "at least one pair"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(KnowingMatcher(), folder_of(tmp_path, 2), **arguments)
