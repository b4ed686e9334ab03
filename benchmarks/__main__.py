"""``python -m benchmarks NAME --root DIR``: a data set by name, or ``speed``, ``calibration``."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from benchmarks.core.runner import Progress
from benchmarks.core.samples import Dataset
from benchmarks.datasets.registry import DatasetReader, dataset_names, find_reader
from benchmarks.datasets.selection import subset
from benchmarks.methods import MethodOptions, available_methods
from benchmarks.run import (
    RunOptions,
    as_lines,
    pinned_threads,
    run_benchmark,
    write_report_folder,
)
from benchmarks.selftest import run_selftest
from benchmarks.tasks import task_for
from matcher.errors import InputError, MatcherError
from matcher.pipeline import PairOptions
from matcher.view_matching import CropMode, Precision, TurnMode

__all__ = ["main"]

_MODULES = {
    "ablations": "benchmarks.ablations.__main__",
    "calibration": "benchmarks.calibration",
    "multiview": "benchmarks.multiview",
    "page": "benchmarks.page",
    "pointmaps": "benchmarks.pointmaps",
    "render-extreme": "benchmarks.datasets.extreme",
    "speed": "benchmarks.speed.suite",
    "speed.matching": "benchmarks.speed.matching",
    "speed.pair": "benchmarks.speed.pair",
    "speed.scenes": "benchmarks.speed.scenes",
}
"""Names that are programs of their own."""

_BAD_INPUT, _SELFTEST_FAILED = 2, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark; returns the exit status (2: bad input, 1: a self-test failed)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in _MODULES:
        sys.argv = [_MODULES[given[0]], *given[1:]]
        runpy.run_module(_MODULES[given[0]], run_name="__main__", alter_sys=False)
        return 0
    parser = _parser()
    options = parser.parse_args(given)
    try:
        if options.name == "methods":
            _list_methods()
            return 0
        with pinned_threads(options.threads):
            return _run(options)
    except MatcherError as error:
        print(f"error: {error}", file=sys.stderr)
        return _BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted: what was computed is kept; the same command goes on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    names = [*dataset_names(), *_MODULES, "methods"]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Benchmarks of matching and pose.",
        epilog="every run can be interrupted and started again: it goes on where it stopped",
    )
    parser.add_argument("name", metavar="NAME", help=", ".join(names))
    parser.add_argument("--root", type=Path, help="folder of the data set in its official layout")
    parser.add_argument("--protocol", help="how to score; a wrong name lists those of the set")
    parser.add_argument("--methods", default="small", help="names or checkpoints, with commas")
    parser.add_argument("--subset", type=int, metavar="N", help="N pairs (or queries) at random")
    parser.add_argument("--min-overlap", type=float, help="leave out pairs known to overlap less")
    parser.add_argument("--selftest", action="store_true", help="score oracles, not methods")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write tables, figures, JSON")
    parser.add_argument("--submission", type=Path, help="file for an evaluation server")
    parser.add_argument("--cache", type=Path, default=Path("benchmark-cache"))
    parser.add_argument("--evaluate-only", action="store_true", help="score what the cache holds")
    parser.add_argument("--retry-failures", action="store_true", help="ask again where it failed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-size", type=int, default=512, help="of our network's view, pixels")
    parser.add_argument("--crops", choices=get_args(CropMode), default=PairOptions().crops)
    parser.add_argument("--max-crops", type=int, default=PairOptions().max_crops)
    parser.add_argument("--turns", choices=get_args(TurnMode), default=PairOptions().turns)
    parser.add_argument("--precision", choices=get_args(Precision), default=PairOptions().precision)
    return parser


def _run(options: argparse.Namespace) -> int:
    reader = find_reader(options.name)
    if options.root is None:
        raise InputError("--root", "the folder of the data set", "nothing")
    dataset = reader.read(options.root)
    if options.selftest:
        return _selftest(reader, dataset, options)
    protocol = reader.protocol(dataset, options.protocol)
    pair = PairOptions(
        max_size=options.max_size,
        crops=options.crops,
        max_crops=options.max_crops,
        turns=options.turns,
        precision=options.precision,
    )
    run = RunOptions(
        protocol=protocol,
        methods=tuple(name.strip() for name in options.methods.split(",") if name.strip()),
        cache=options.cache,
        subset=options.subset,
        min_overlap=options.min_overlap,
        method=MethodOptions(pair=pair, device=options.device),
        retry_failures=options.retry_failures,
        evaluate_only=options.evaluate_only,
        submission=options.submission,
    )
    result = run_benchmark(dataset, run, reader.published, _progress_bar)
    title = result.report.display_title
    print(f"{title}, protocol {protocol.name}, {result.report.provenance.num_pairs} pairs")
    for line in as_lines(result.report):
        print(line)
    if options.report is not None:
        files = write_report_folder(result, options.report)
        print(f"wrote {len(files)} files into {options.report}")
    return 0


def _progress_bar(method: str, total: int) -> Progress:
    bar = tqdm(total=total, desc=method, unit="pair", dynamic_ncols=True)

    def show(done: int, count: int, failure: str) -> None:
        if failure:
            bar.write(f"{method}: {failure}", file=sys.stderr)
        bar.update(1)
        if done == count:
            bar.close()

    return show


def _selftest(reader: DatasetReader, dataset: Dataset, options: argparse.Namespace) -> int:
    dataset = subset(dataset, options.subset, options.min_overlap)
    names = [options.protocol] if options.protocol else list(reader.protocols_of(dataset))
    passed = True
    for name in names:
        result = run_selftest(dataset, task_for(dataset.kind), reader.protocol(dataset, name))
        passed &= result.passed
        for case in result.cases:
            verdict = "ok" if case.passed else "FAILED"
            print(
                f"{reader.name} {name:14s} {case.name:12s} {case.metric} {case.value:.4f} "
                f"(expected {case.low:.2f} to {case.high:.2f}) {verdict}"
            )
    return 0 if passed else _SELFTEST_FAILED


def _list_methods() -> None:
    for entry in available_methods():
        state = f"not here: {entry.reason}" if entry.reason else "ready"
        print(f"{entry.name:22s} {entry.licence:28s} {state}")


if __name__ == "__main__":
    raise SystemExit(main())
