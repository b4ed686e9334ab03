"""From two files to a pose: ours beside SIFT, with the same estimator, in turns."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.methods import MethodOptions, build_method
from benchmarks.speed.photographs import write_pair
from benchmarks.speed.tables import SpeedRow, SpeedSettings, SpeedTable
from benchmarks.speed.timing import Work, measure_in_turns, speedup
from matcher import Matcher, PairOptions
from matcher.geometry.relative import estimate_relative_pose
from matcher.images import read_image

__all__ = ["end_to_end_tables"]


def end_to_end_tables(settings: SpeedSettings) -> tuple[SpeedTable, ...]:
    """The motorcycle pair at the given size; ours whole and in parts."""
    with tempfile.TemporaryDirectory() as folder:
        return (_table(Path(folder), settings),)


def _table(folder: Path, settings: SpeedSettings) -> SpeedTable:
    size = settings.size
    files, (camera0, camera1) = write_pair(folder, size)
    options = PairOptions(crops="never")
    matcher = Matcher.from_pretrained(settings.model, device=settings.device, options=options)
    sift = build_method("sift", MethodOptions())

    def reference() -> object:
        found = sift.match(read_image(files[0]), read_image(files[1]))
        return estimate_relative_pose(
            found.keypoints0,
            found.keypoints1,
            camera0=camera0,
            camera1=camera1,
            size0=size,
            size1=size,
        )

    def ours() -> object:
        return matcher.match(*files).relative_pose(camera0, camera1)

    encoded = [matcher.encode(file) for file in files]
    result = matcher.match(*encoded)
    parts: dict[str, Work] = {
        "ours, files to pose": ours,
        "- read and encode both": lambda: [matcher.encode(file) for file in files],
        "- decode and search": lambda: matcher.match(*encoded),
        "- the same without pointmaps": lambda: matcher.match(*encoded, keep_pointmaps=False),
        "- pose": lambda: result.relative_pose(camera0, camera1),
    }
    measured = measure_in_turns(
        [reference, *parts.values()],
        warmup=settings.warmup,
        repeats=settings.repeats,
        device=settings.device,
    )
    sift_seconds, whole = measured[:2]
    rows = [
        SpeedRow("SIFT, files to pose", sift_seconds, None, {"pairs/s": 1 / sift_seconds.median})
    ]
    for name, own in zip(parts, measured[1:], strict=True):
        extras = {"pairs/s": 1 / own.median} if own is whole else {}
        rows.append(SpeedRow(name, own, speedup(sift_seconds, own), extras))
    return SpeedTable(
        f"Two files of {size.width} x {size.height} to a pose, model {matcher.info.name}, no crops",
        "OpenCV SIFT (4096 features, ratio test, mutual; on the CPU) with the same pose estimator",
        tuple(rows),
        note=f"Matches: SIFT {len(sift.match(*map(read_image, files)))}, ours {len(result)}.",
    )
