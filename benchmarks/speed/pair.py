"""Seconds a pair, from two files to a pose, after the model is loaded.

    python -m benchmarks.speed.pair [--threads 2] [--model small] [--size 512x384] [--json]

The Middlebury motorcycle pair, written as two JPEG files of the given size. After a warm-up the
median and the quartiles of several runs, whole and by part, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.speed.memory import peak_resident_mib
from benchmarks.speed.photographs import write_pair
from benchmarks.speed.timing import Measurement, pin_threads
from matcher import Camera, Matcher, PairOptions
from matcher.structures import ImageSize

__all__ = ["main", "measure_pair"]


def measure_pair(
    matcher: Matcher,
    files: tuple[Path, Path],
    cameras: tuple[Camera, Camera],
    repeats: int,
) -> dict[str, Measurement]:
    """Seconds of reading and encoding, of all of matching, of the pose, and of the whole."""
    times: dict[str, list[float]] = {"encode": [], "match": [], "pose": [], "files to pose": []}
    for turn in range(repeats + 1):
        moments = [time.perf_counter()]
        encoded = [matcher.encode(file) for file in files]
        moments.append(time.perf_counter())
        pair = matcher.match(*encoded)
        moments.append(time.perf_counter())
        pair.relative_pose(*cameras)
        moments.append(time.perf_counter())
        if turn:  # the first is a warm-up
            for number, name in enumerate(("encode", "match", "pose")):
                times[name].append(moments[number + 1] - moments[number])
            times["files to pose"].append(moments[-1] - moments[0])
    return {name: Measurement.of(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--size", default="512x384", help="width x height of the files")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments, _ = parser.parse_known_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    pin_threads(arguments.threads)
    options = PairOptions(crops="never")
    matcher = Matcher.from_pretrained(arguments.model, device="cpu", options=options)
    with tempfile.TemporaryDirectory() as folder:
        files, cameras = write_pair(Path(folder), ImageSize(height, width))
        result = measure_pair(matcher, files, cameras, arguments.repeats)
    peak = peak_resident_mib()
    if arguments.json:
        seconds = {
            name: {key: round(getattr(value, key), 3) for key in ("median", "q25", "q75")}
            for name, value in result.items()
        }
        print(
            json.dumps({"seconds": seconds, "peak_mib": round(peak), "threads": arguments.threads})
        )
        return
    print(f"{arguments.model}, {width} x {height}, {arguments.threads} threads, seconds:")
    for name, value in result.items():
        print(f"  {name:14} {value.median:.3f}  ({value.q25:.3f} to {value.q75:.3f})")
    print(f"  peak memory of the process: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
