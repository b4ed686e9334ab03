"""All speed suites in one run, as Markdown tables and one JSON file.

    python -m benchmarks speed [--root DIR] [--quick] [--device cpu] [--out FILE.json]

Every table compares with a named reference that is measured in the same run, in turns where it
can be: median and quartiles after a warm-up, with the threads of every library pinned. The image
sizes, pair counts and map sizes are fixed, ``--quick`` shrinks them to see that everything runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.core.provenance import collect_provenance
from benchmarks.core.samples import Dataset
from benchmarks.speed.end_to_end import end_to_end_tables
from benchmarks.speed.folder import folder_tables
from benchmarks.speed.memory import memory_tables
from benchmarks.speed.network import network_tables
from benchmarks.speed.search import search_tables
from benchmarks.speed.tables import SpeedSettings, SpeedTable
from benchmarks.speed.timing import pin_threads
from matcher.errors import InputError, MatcherError
from matcher.files import replaced
from matcher.structures import ImageSize

__all__ = ["SUITES", "main", "run_suites"]

Suite = Callable[[SpeedSettings], tuple[SpeedTable, ...]]
SUITES: dict[str, Suite] = {
    "network": network_tables,
    "search": search_tables,
    "end-to-end": end_to_end_tables,
    "folder": folder_tables,
    "memory": memory_tables,
}
_QUICK_SIZE = ImageSize(96, 128)


def run_suites(
    names: list[str], settings: SpeedSettings, say: Callable[[str], None]
) -> tuple[SpeedTable, ...]:
    """Run the named suites one after the other; ``say`` gets every table as it is done.

    Raises:
        InputError: an unknown suite, or a device that is not here.
    """
    unknown = [name for name in names if name not in SUITES]
    if unknown or not names:
        raise InputError("suites", f"names among {', '.join(SUITES)}", f"{unknown or 'none'}")
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("device", "a device that is here", f"{settings.device} (no CUDA)")
    tables = []
    for name in names:
        for table in SUITES[name](settings):
            say(table.to_markdown())
            tables.append(table)
    return tuple(tables)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks speed", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--suites", default=",".join(SUITES), help="names, with commas between")
    parser.add_argument("--root", type=Path, help="a folder of photographs; otherwise rendered")
    parser.add_argument("--model", default="small")
    parser.add_argument("--size", default="512x384", help="width x height of the photographs")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="tiny: only to see that it runs")
    parser.add_argument("--out", type=Path, help="write the tables with their provenance as JSON")
    chosen = parser.parse_args(arguments)
    try:
        settings = SpeedSettings(
            model=chosen.model,
            device=chosen.device,
            threads=chosen.threads,
            repeats=1 if chosen.quick else chosen.repeats,
            size=_QUICK_SIZE if chosen.quick else _parse_size(chosen.size),
            root=chosen.root,
            quick=chosen.quick,
        )
        names = chosen.suites.split(",")
        if chosen.out is not None and not chosen.out.absolute().parent.is_dir():
            raise InputError("out", "a file in a folder that exists", f"{chosen.out}")
        print(_describe(settings), flush=True)
        tables = run_suites(names, settings, lambda text: print(f"\n{text}", end="", flush=True))
        if chosen.out is not None:
            _write(chosen.out, names, settings, tables)
    except MatcherError as error:
        sys.exit(f"error: {error}")


def _parse_size(text: str) -> ImageSize:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise InputError("size", "width x height, for instance 512x384", f"{text!r}")
    return ImageSize(int(height), int(width))


def _describe(settings: SpeedSettings) -> str:
    threads = pin_threads(settings.threads)
    quick = "; quick: the numbers mean nothing" if settings.quick else ""
    return (
        f"device {settings.device}; {threads}; warm-up {settings.warmup}, median and quartiles of "
        f"{settings.repeats} runs{quick}"
    )


def _write(
    path: Path, names: list[str], settings: SpeedSettings, tables: tuple[SpeedTable, ...]
) -> None:
    # Provenance is that of every benchmark; here it is one without pairs.
    nothing = Dataset("speed", "Speed", (), kind="speed", root=Path())
    content = {
        "provenance": collect_provenance(nothing, settings.device).to_dict(),
        "settings": {
            "suites": names,
            "model": settings.model if "/" not in settings.model else Path(settings.model).name,
            "size": [settings.size.height, settings.size.width],
            "threads": settings.threads,
            "warmup": settings.warmup,
            "repeats": settings.repeats,
            "quick": settings.quick,
        },
        "tables": [table.to_dict() for table in tables],
    }
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
