"""Many queries: lists as hloc writes them, answers that survive an interruption, submissions.

A query list has ``name MODEL width height params...`` on each line, a submission ``name qw qx qy qz
tx ty tz`` (``cam_from_world``); cameras are in COLMAP's pixel convention, as both formats say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matcher.errors import DatasetError, InputError
from matcher.files import replaced
from matcher.geometry.pixels import camera_from_colmap
from matcher.geometry.pose import rotation_to_quaternion
from matcher.localization.answer import AbsolutePose
from matcher.localization.localizer import Localizer
from matcher.structures import Camera, ImageSize, Pose

__all__ = ["BatchSummary", "Query", "localize_queries", "read_query_list", "write_submission"]

# Parameters of COLMAP's simpler lenses as those of ours that contain them.
_WIDENED: Mapping[str, tuple[str, int, Callable[[Sequence[float]], tuple[float, ...]]]] = {
    "SIMPLE_PINHOLE": ("PINHOLE", 3, lambda p: (p[0], p[0], p[1], p[2])),
    "RADIAL": ("OPENCV", 5, lambda p: (p[0], p[0], p[1], p[2], p[3], p[4], 0.0, 0.0)),
}


@dataclass(frozen=True, slots=True)
class Query:
    """A photograph of a query list.

    Attributes:
        name: as the list has it.
        camera: its intrinsics, or ``None``: the list does not say.
    """

    name: str
    camera: Camera | None = None


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What became of a query list.

    Attributes:
        num_queries: in the list.
        num_localized: with a pose.
        num_reused: answered by an earlier, interrupted run.
        without_pose: name of every other query, and why.
    """

    num_queries: int
    num_localized: int
    num_reused: int
    without_pose: Mapping[str, str]


def read_query_list(path: str | os.PathLike[str]) -> list[Query]:
    """Read a query list; a line with a name alone is a query whose camera is not known.

    Blank lines and lines that begin with ``#`` are passed over.

    Raises:
        InputError: a file that cannot be read, a line that is no query, a name that appears twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError("query list", "a text file", f"{path} ({reason})") from None
    queries: dict[str, Query] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        place = f"line {number} of {path}"
        if words[0] in queries:
            again = f"{words[0]} again in {place}"
            raise InputError("query list", "names that appear once", again)
        queries[words[0]] = Query(words[0], _camera(words[1:], place))
    if not queries:
        raise InputError("query list", "at least one query", f"none in {path}")
    return list(queries.values())


def localize_queries(
    localizer: Localizer,
    queries: Sequence[Query],
    images: str | os.PathLike[str],
    log: str | os.PathLike[str],
    *,
    bound_to: Mapping[str, Any],
    progress: Callable[[int, int, str], None] | None = None,
) -> BatchSummary:
    """Localize a query list; an interrupted run goes on where it stopped.

    Args:
        localizer: of the map.
        queries: photographs.
        images: the folder that their names are relative to.
        log: a file with a line a query, each written as soon as it is there;
            :func:`write_submission` makes a submission of it.
        bound_to: what decides the answers (model, options, map): a log of others is refused.
        progress: called after each query with (done, all, why there is no pose: empty if there is).

    Returns:
        How many have a pose, and why the others do not; a photograph that cannot be read is one of
        those.

    Raises:
        InputError: a log that was written with something else, or that cannot be written.
    """
    target = Path(log)
    header = {"bound_to": json.loads(json.dumps(bound_to))}
    done = _open_log(target, header)
    num_reused = sum(query.name in done for query in queries)
    try:
        with target.open("a", encoding="utf-8") as stream:
            for number, query in enumerate(queries, start=1):
                if query.name not in done:
                    entry = _answer(localizer, query, Path(images) / query.name)
                    stream.write(json.dumps(entry) + "\n")
                    stream.flush()
                    done[query.name] = entry
                if progress is not None:
                    progress(number, len(queries), done[query.name].get("reason") or "")
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise InputError("log", "a file that can be written", f"{target}: {reason}") from None
    without = {
        query.name: str(done[query.name]["reason"])
        for query in queries
        if done[query.name]["cam_from_world"] is None
    }
    return BatchSummary(len(queries), len(queries) - len(without), num_reused, without)


def write_submission(
    log: str | os.PathLike[str], path: str | os.PathLike[str], *, names_only: bool = False
) -> int:
    """Write ``name qw qx qy qz tx ty tz`` (``cam_from_world``) for every query with a pose.

    A query without a pose has no line: evaluation servers count it as a failure.

    Args:
        log: as :func:`localize_queries` wrote it.
        path: the submission.
        names_only: without the folders of the names, as some servers ask.

    Returns:
        how many lines there are.

    Raises:
        DatasetError: no such log.
        InputError: a place that cannot be written to.
    """
    source, target = Path(log), Path(path)
    if not source.is_file():
        raise DatasetError(f"no log of queries at {source}")
    _, entries = _read_log(source)
    lines = []
    for name, entry in entries.items():
        if entry["cam_from_world"] is None:
            continue
        pose = Pose(
            np.array(entry["cam_from_world"]["rotation"]),
            np.array(entry["cam_from_world"]["translation"]),
        )
        numbers = (*rotation_to_quaternion(pose.rotation), *pose.translation)
        written = name.rsplit("/", 1)[-1] if names_only else name
        lines.append(" ".join([written, *(f"{number:.12g}" for number in numbers)]))
    try:
        with replaced(target) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        expected = "a file that can be written"
        raise InputError("submission", expected, f"{target}: {reason}") from None
    return len(lines)


def _answer(localizer: Localizer, query: Query, path: Path) -> dict[str, Any]:
    """A line of the log; what is wrong with one photograph must not end the run."""
    try:
        answer: AbsolutePose = localizer.localize(path, query.camera)
    except InputError as error:
        return {"name": query.name, "cam_from_world": None, "reason": str(error)}
    return {"name": query.name, **answer.to_dict()}


def _open_log(path: Path, header: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The answers of a log that can be continued; a new one is begun with its header."""
    if path.is_file():
        found, entries = _read_log(path)
        if found != header:
            what = "another's" if found else "no log of queries"
            raise InputError("log", "one of the same model, options and map", f"{what}: {path}")
        # Without a half line that an interruption left behind.
        _write_log(path, header, entries)
        return entries
    _write_log(path, header, {})
    return {}


def _read_log(path: Path) -> tuple[Any, dict[str, dict[str, Any]]]:
    """The header (``None``: there is none) and the whole lines of a log."""
    header, entries = None, {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue  # cut off
        if not isinstance(values, dict):
            continue
        if "bound_to" in values:
            header = values
        elif "name" in values and "cam_from_world" in values:
            entries[str(values["name"])] = values
    return header, entries


def _write_log(path: Path, header: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    try:
        with replaced(path) as temporary:
            lines = [json.dumps(values) for values in (header, *entries.values())]
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise InputError("log", "a file that can be written", f"{path}: {reason}") from None


def _camera(words: Sequence[str], place: str) -> Camera | None:
    if not words:
        return None
    model, *numbers = words
    try:
        width, height, *params = (float(number) for number in numbers)
        size = ImageSize(int(height), int(width))
        if model in _WIDENED:
            model, count, widen = _WIDENED[model]
            if len(params) != count:
                raise InputError("camera parameters", f"{count} numbers", f"{len(params)}")
            params = list(widen(params))
        return camera_from_colmap(Camera(model, tuple(params), size))  # type: ignore[arg-type]
    except ValueError as error:  # an InputError is one
        reason = str(error) if isinstance(error, InputError) else " ".join(words)
        expected = "name MODEL width height params"
        raise InputError("query list", expected, f"{place}: {reason}") from None
