"""The open format: anyone's own pairs, one JSON object a line.

``image0`` and ``image1`` (relative to the file), then either a pose, ``K0``, ``K1`` (3 x 3),
``T_0to1`` (4 x 4, maps points of camera 0 into camera 1, OpenCV axes), or ``H_0to1`` (3 x 3, maps
pixels). Integer pixels are pixel centres. Optional: ``rot_deg``, ``overlap``, ``set``, ``scene``,
``is_metric``; ``depth0`` (a picture of image 0's z-depth, one channel, 0: unknown) with
``depth_scale``, its units for one unit of the translation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.core.protocols import Protocol
from benchmarks.core.published import PublishedValue
from benchmarks.core.samples import Dataset, HomographyTruth, PoseTruth, Truth, missing_data
from benchmarks.datasets.building import PairCollector, as_matrix, as_rigid
from benchmarks.protocols import HOMOGRAPHY_PRESETS, POSE_PRESETS
from matcher.errors import DatasetError

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read", "read_pair_list"]

NAME = "pairs"
TITLE = "Pairs"
PUBLISHED = "your own pairs, in the format that docs/benchmarks.md describes"
PUBLISHED_VALUES: tuple[PublishedValue, ...] = ()
# A list of homographies is scored by the preset of the same name in HOMOGRAPHY_PRESETS.
PROTOCOLS: dict[str, Protocol] = dict(POSE_PRESETS)
HOMOGRAPHY_PROTOCOLS: dict[str, Protocol] = dict(HOMOGRAPHY_PRESETS)

_TREE = (
    "pairs.jsonl    one JSON object a line: image0, image1, K0, K1, T_0to1 (or H_0to1)",
    "...            the images it names, relative to it",
)
_STATED_ANGLE_TOLERANCE_DEG = 1.0


def read(root: Path) -> Dataset:
    """The pairs of ``root``, a folder with ``pairs.jsonl`` or such a file.

    Raises:
        DatasetError: no such file, or not one line of it can be used.
    """
    path = root / "pairs.jsonl" if root.is_dir() else root
    if not path.is_file():
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    return read_pair_list(path, NAME, f"{TITLE}: {path.parent.resolve().name}")


def read_pair_list(
    path: Path,
    name: str,
    title: str,
    *,
    notes: tuple[str, ...] = (),
    is_synthetic: bool = False,
) -> Dataset:
    """The pairs of one ``pairs.jsonl``; ``name`` and ``title`` as in :class:`Dataset`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as text ({error})") from None
    collector = PairCollector()
    kind, absent_depths = "", 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = _parse(line)
            found = "homography" if "H_0to1" in entry else "pose"
            kind = kind or found
            if found != kind:
                raise DatasetError(f"a {found} in a list that began with a {kind}")
            images = tuple(path.parent / _text(entry, key) for key in ("image0", "image1"))
            label = f"{_text(entry, 'image0')}--{_text(entry, 'image1')}"
            group = _text(entry, "set", "") or _text(entry, "scene", "")
            if "depth0" in entry and not (path.parent / _text(entry, "depth0")).is_file():
                # The pose is scored all the same; only single matches are judged less sharply.
                del entry["depth0"]
                absent_depths += 1
        except DatasetError as error:
            collector.fail(f"line {number}", str(error))
            continue
        collector.add(label, (images[0], images[1]), _Line(number, entry, path.parent), group)
    if absent_depths:
        notes = (*notes, f"{absent_depths} pairs name a depth that is not there: left unused")
    return collector.finish(
        name, title, path.parent, kind=kind or "pose", notes=notes, is_synthetic=is_synthetic
    )


class _Line:
    """Makes the truth of a line; errors carry its number."""

    def __init__(self, number: int, entry: Mapping[str, Any], folder: Path) -> None:
        self.number, self.entry, self.folder = number, entry, folder

    def __call__(self) -> Truth:
        try:
            return _truth(self.entry, self.folder)
        except DatasetError as error:
            raise DatasetError(f"line {self.number}: {error}") from None


def _parse(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DatasetError(f"broken JSON ({error})") from None
    if not isinstance(entry, dict):
        raise DatasetError(f"expected a JSON object, got {type(entry).__name__}")
    return entry


def _text(entry: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str):
        raise DatasetError(f"{key}: expected text, got {value!r}")
    return value


def _truth(entry: Mapping[str, Any], folder: Path) -> Truth:
    if "H_0to1" in entry:
        return HomographyTruth(as_matrix("H_0to1", entry["H_0to1"], (3, 3)))
    depth0 = folder / _text(entry, "depth0") if "depth0" in entry else None
    scale = float(as_matrix("depth_scale", entry.get("depth_scale", 1000.0), ()))
    if scale <= 0:
        raise DatasetError(f"depth_scale: expected a positive number, got {scale:g}")
    pose = as_matrix("T_0to1", entry.get("T_0to1"), (4, 4))
    truth = PoseTruth(
        as_matrix("K0", entry.get("K0"), (3, 3)),
        as_matrix("K1", entry.get("K1"), (3, 3)),
        as_rigid("T_0to1", pose[:3, :3], pose[:3, 3]),
        is_metric=entry.get("is_metric") is True,
        overlap=_share(entry.get("overlap")),
        depth0=depth0,
        depth_scale=scale,
    )
    stated = entry.get("rot_deg")
    if stated is not None:
        angle = float(as_matrix("rot_deg", stated, ()))
        if abs(angle - truth.rotation_deg) > _STATED_ANGLE_TOLERANCE_DEG:
            raise DatasetError(f"rot_deg {angle:g} does not fit T_0to1 ({truth.rotation_deg:.2f})")
    return truth


def _share(value: Any) -> float | None:
    if value is None:
        return None
    share = float(as_matrix("overlap", value, ()))
    if not 0 <= share <= 1:
        raise DatasetError(f"overlap: expected a number in [0, 1], got {share:g}")
    return share
