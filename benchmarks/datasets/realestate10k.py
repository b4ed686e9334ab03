"""RealEstate10K: house tours from the web, as text files and the frames one could still extract.

A sequence is ``<sequence>.txt``: the video's address, then a line a frame: timestamp in
microseconds, fx, fy, cx, cy relative to width and height, two zeros, and the world-to-camera
matrix (3 x 4) row by row.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks.core.protocols import Protocol
from benchmarks.core.published import PublishedValue, published_row
from benchmarks.core.samples import Dataset, FloatArray, PoseTruth, missing_data
from benchmarks.datasets.building import (
    PairCollector,
    as_rigid,
    first_existing,
    relative_pose,
    stored_size,
)
from benchmarks.datasets.frame_choice import choose_frames, frame_list_sha256
from benchmarks.datasets.number_files import parse_numbers, read_lines
from benchmarks.protocols import POSE_PRESETS
from matcher.errors import DatasetError
from matcher.structures import ImageSize

__all__ = ["FRAMES", "NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "SEED", "TITLE", "read"]

NAME = "realestate10k"
TITLE = "RealEstate10K"
PUBLISHED = (
    "https://google.github.io/realestate10k (annotations CC BY 4.0; the videos belong to their "
    "uploaders and disappear); list of 1800 test sequences: re10k_test_1800.txt"
)
FRAMES = 10
SEED = 0
PROTOCOLS: dict[str, Protocol] = {
    "realestate10k": Protocol(
        name="realestate10k",
        estimator=POSE_PRESETS["ours"].estimator,
        auc_thresholds=(5.0, 10.0, 20.0, 30.0),
        is_headline=True,
        note=(
            "10 frames a sequence, all 45 pairs; the essential matrix is found with the published "
            "focals, which the published networks do not use"
        ),
    ),
    **{name: preset for name, preset in POSE_PRESETS.items() if not name.startswith("ours")},
}
PUBLISHED_VALUES: tuple[PublishedValue, ...] = (
    *published_row("MASt3R", ("mAA(30)",), (76.4,), "MASt3R paper"),
    *published_row("DUSt3R (alignment)", ("mAA(30)",), (67.7,), "MASt3R paper"),
)

_TREE = (
    "test/<sequence>.txt ...                  (or right below the folder)",
    "frames/<sequence>/<timestamp>.jpg ...    (or .png)",
    "re10k_test_1800.txt                      if there: only these sequences",
)
_LIST = "re10k_test_1800.txt"
_SUFFIXES = (".jpg", ".png")
_NUMBERS_A_LINE = 19


def read(root: Path) -> Dataset:
    """All pairs of ten extracted frames of each sequence below ``root``.

    Raises:
        DatasetError: no sequence with frames, or no pair can be used.
    """
    folder = first_existing(root, ("test",)) or root
    files = {path.stem: path for path in sorted(folder.glob("*.txt")) if path.name != _LIST}
    if not files or not (root / "frames").is_dir():
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    wanted = _wanted(root / _LIST, sorted(files))
    collector = PairCollector()
    chosen: dict[str, list[int]] = {}
    lost = 0
    for sequence in wanted:
        frames = _extracted(root / "frames" / sequence)
        if sequence not in files or len(frames) < FRAMES:
            lost += 1
            continue
        picked = choose_frames(sequence, sorted(frames), FRAMES, SEED)
        chosen[sequence] = picked
        try:
            lines = _lines(files[sequence])
        except DatasetError as error:
            collector.fail(sequence, str(error))
            continue
        _collect_sequence(collector, files[sequence], lines, {at: frames[at] for at in picked})
    notes = (
        f"{len(wanted) - lost} of {len(wanted)} sequences remained; {lost} have fewer than "
        f"{FRAMES} extracted frames, or no text file",
        f"{FRAMES} frames a sequence drawn with seed {SEED}, all pairs; "
        f"frame list sha256 {frame_list_sha256(chosen)}",
    )
    return collector.finish(NAME, TITLE, root, notes=notes)


def _wanted(path: Path, present: list[str]) -> list[str]:
    """Names of the official list, which may be written as paths; all there are without it."""
    if not path.is_file():
        return present
    return list(dict.fromkeys(Path(words[0]).stem for _, words in read_lines(path)))


def _extracted(folder: Path) -> dict[int, Path]:
    """Timestamp -> image."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        int(path.stem): path
        for path in files
        if path.suffix.lower() in _SUFFIXES and path.stem.isdecimal()
    }


def _lines(path: Path) -> dict[int, tuple[int, list[str]]]:
    """Timestamp -> number and words of its line; the first line is the video's address."""
    return {
        int(words[0]): (number, words) for number, words in read_lines(path) if words[0].isdecimal()
    }


def _collect_sequence(
    collector: PairCollector,
    path: Path,
    lines: dict[int, tuple[int, list[str]]],
    frames: dict[int, Path],
) -> None:
    for first, second in combinations(frames, 2):

        def truth(pair: tuple[int, int] = (first, second)) -> PoseTruth:
            (k0, pose0), (k1, pose1) = (_camera(path, lines, at, frames[at]) for at in pair)
            return PoseTruth(k0, k1, relative_pose(pose0, pose1))

        label = f"{path.stem}/{first}--{second}"
        collector.add(label, (frames[first], frames[second]), truth, path.stem)


def _camera(
    path: Path, lines: dict[int, tuple[int, list[str]]], timestamp: int, image: Path
) -> tuple[FloatArray, FloatArray]:
    """K (3, 3) of the stored frame and cam_from_world (4, 4)."""
    if timestamp not in lines:
        raise DatasetError(f"{path.name}: no line for timestamp {timestamp}")
    number, words = lines[timestamp]
    values = parse_numbers(words, _NUMBERS_A_LINE, path, number)
    matrix = values[7:].reshape(3, 4)
    k = _pixels(values[1:5], stored_size(image))
    return k, as_rigid(f"{path.name}:{number}", matrix[:, :3], matrix[:, 3])


def _pixels(relative: FloatArray, size: ImageSize) -> FloatArray:
    """K from focals and principal point relative to the size, whose 0 is the image's edge."""
    fx, fy, cx, cy = relative * [size.width, size.height, size.width, size.height]
    return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1.0]])
