"""Peak memory, each case in a process of its own.

    python -m benchmarks.speed.memory CASE [--size 512x384] [--device cpu] [--threads 2]

prints one JSON object. What a process once held it never gives back to its peak, so that cases
cannot share one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.methods import MethodOptions, build_method
from benchmarks.speed.tables import SpeedRow, SpeedSettings, SpeedTable
from benchmarks.speed.timing import Measurement, pin_threads, speedup, synchronise
from matcher import PairOptions
from matcher.errors import MatcherError
from matcher.images import RgbArray
from matcher.structures import ImageSize

__all__ = ["CASES", "Peak", "main", "measure_peak", "memory_tables", "peak_resident_mib"]

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 900
_MOST_REPEATS = 3
_LARGER = ImageSize(768, 1024)


@dataclass(frozen=True, slots=True)
class Peak:
    """Peaks of one process in MiB; ``gpu`` counts torch's tensors, 0 without a GPU."""

    resident: float
    gpu: float


def peak_resident_mib() -> float:
    """Peak resident memory of this process, MiB.

    ``ru_maxrss`` is inherited from the process that started this one, which may have been larger;
    Linux also tells the peak of the present address space alone.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _noise_pair(size: ImageSize) -> tuple[RgbArray, RgbArray]:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 255, (size.height // 4 + 1, size.width // 4 + 1, 3))
    image = coarse.repeat(4, axis=0).repeat(4, axis=1)[: size.height, : size.width]
    image0 = image.astype(np.uint8)
    return image0, np.roll(image0, (3, -5), axis=(0, 1))


def _libraries(_: SpeedSettings) -> None:
    """What was imported is all there is."""


def _load_model(settings: SpeedSettings) -> None:
    build_method(settings.model, MethodOptions(device=settings.device))


def _match_with(name: str, settings: SpeedSettings) -> None:
    options = MethodOptions(pair=PairOptions(), device=settings.device)
    build_method(name, options).match(*_noise_pair(settings.size))


CASES: dict[str, Callable[[SpeedSettings], None]] = {
    "libraries": _libraries,
    "model": _load_model,
    "sift": lambda settings: _match_with("sift", settings),
    "pair": lambda settings: _match_with(settings.model, settings),
}


def measure_peak(case: str, settings: SpeedSettings) -> Peak:
    """Run a case in a new process.

    Raises:
        MatcherError: it failed; with the last line of what it said.
    """
    command = [sys.executable, "-m", "benchmarks.speed.memory", case]
    command += ["--model", settings.model, "--device", settings.device]
    command += ["--size", f"{settings.size.width}x{settings.size.height}"]
    command += ["--threads", str(settings.threads)]
    done = subprocess.run(
        command, cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MatcherError(f"memory of {case!r}: the process failed ({last})")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def memory_tables(settings: SpeedSettings) -> tuple[SpeedTable, ...]:
    """Peak of the libraries alone, the loaded model, SIFT on a pair, and ours on two sizes."""
    small, large = settings.size, _LARGER
    cases = [
        ("SIFT on a pair of {}", "sift", small),
        ("libraries alone", "libraries", small),
        ("model loaded", "model", small),
        ("ours on a pair of {}", "pair", small),
        ("ours on a pair of {}, with crops", "pair", large),
    ]
    if settings.quick:
        cases = [cases[0], cases[3]]
    peaks = []
    for _, case, size in cases:
        told = SpeedSettings(settings.model, settings.device, settings.threads, size=size)
        repeats = min(settings.repeats, _MOST_REPEATS)
        peaks.append([measure_peak(case, told) for _ in range(repeats)])
    resident = [Measurement.of([peak.resident for peak in runs]) for runs in peaks]
    rows: list[SpeedRow] = []
    for (name, _, size), own, runs in zip(cases, resident, peaks, strict=True):
        # The ratio of memory is the other way round than that of time: less is better.
        against = speedup(own, resident[0]) if rows else None
        extras = {"above the reference MiB": own.median - resident[0].median}
        if settings.device.startswith("cuda"):
            extras["GPU MiB"] = max(peak.gpu for peak in runs)
        label = name.format(f"{size.width} x {size.height}")
        rows.append(SpeedRow(label, own, against, extras))
    table = SpeedTable(
        "Peak memory of a process",
        f"{rows[0].name} in a process of its own, which has imported the same libraries",
        tuple(rows),
        ratio="times the reference",
        unit="MiB",
    )
    return (table,)


def main(arguments: list[str] | None = None) -> None:
    """Run one case in this process and print its peaks."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.memory", description="Peak memory")
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--model", default="small")
    parser.add_argument("--size", default="512x384", help="width x height")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args(arguments)
    pin_threads(chosen.threads)
    width, height = (int(side) for side in chosen.size.split("x"))
    on_gpu = chosen.device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(chosen.device)
    CASES[chosen.case](
        SpeedSettings(chosen.model, chosen.device, chosen.threads, size=ImageSize(height, width))
    )
    synchronise(chosen.device)
    gpu = torch.cuda.max_memory_allocated(chosen.device) / 2**20 if on_gpu else 0.0
    print(json.dumps({"resident": peak_resident_mib(), "gpu": gpu}))


if __name__ == "__main__":
    main()
