"""Seconds a pair, from two files to a pose, after the model is loaded.

    python -m benchmarks.speed.pair [--threads 2] [--model small] [--size 512x384] [--json]

The Middlebury motorcycle pair, written as two JPEG files of the given size. After a warm-up the
median and the quartiles of several runs, whole and by part, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import torch

from matcher import Camera, Matcher, PairOptions
from matcher.sample_pairs import motorcycle_pair

__all__ = ["main"]


def _quartiles(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 3), "q25": round(low, 3), "q75": round(high, 3)}


def measure(matcher: Matcher, folder: Path, cameras: tuple[Camera, Camera], repeats: int) -> dict:
    """Seconds of reading and encoding, of all of matching, and of the pose."""
    files = folder / "image0.jpg", folder / "image1.jpg"
    times: dict[str, list[float]] = {"encode": [], "match": [], "pose": [], "files to pose": []}

    def timed(name: str, work: Callable[[], object]) -> object:
        started = time.perf_counter()
        result = work()
        times[name].append(time.perf_counter() - started)
        return result

    for turn in range(repeats + 1):
        started = time.perf_counter()
        encoded = timed("encode", lambda: [matcher.encode(file) for file in files])
        pair = timed("match", lambda found=encoded: matcher.match(*found))
        timed("pose", lambda found=pair: found.relative_pose(*cameras))
        times["files to pose"].append(time.perf_counter() - started)
        if turn == 0:
            for values in times.values():
                values.clear()
    return {name: _quartiles(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--size", default="512x384", help="width x height of the files")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments, _ = parser.parse_known_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    sample = motorcycle_pair()
    ratio = width / sample.image0.shape[1], height / sample.image0.shape[0]
    cameras = tuple(
        Camera.pinhole(
            camera.focals[0] * ratio[0],
            camera.focals[1] * ratio[1],
            (camera.principal_point[0] + 0.5) * ratio[0] - 0.5,
            (camera.principal_point[1] + 0.5) * ratio[1] - 0.5,
        )
        for camera in (sample.camera0, sample.camera1)
    )
    matcher = Matcher.from_pretrained(
        arguments.model, device="cpu", options=PairOptions(crops="never")
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, image in (("image0", sample.image0), ("image1", sample.image1)):
            resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(Path(folder) / f"{name}.jpg"), resized[..., ::-1])
        result = measure(matcher, Path(folder), (cameras[0], cameras[1]), arguments.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if arguments.json:
        print(
            json.dumps({"seconds": result, "peak_mib": round(peak), "threads": arguments.threads})
        )
        return
    print(f"{arguments.model}, {width} x {height}, {arguments.threads} threads, seconds:")
    for name, values in result.items():
        print(f"  {name:14} {values['median']:.3f}  ({values['q25']:.3f} to {values['q75']:.3f})")
    print(f"  peak memory of the process: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
