"""Pairs a second of a folder, with the encoder cache and without it, against the pair count."""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path

from benchmarks.speed.photographs import photographs_of, render_photographs
from benchmarks.speed.tables import SpeedRow, SpeedSettings, SpeedTable
from benchmarks.speed.timing import measure_in_turns, speedup
from matcher import Matcher, PairOptions
from matcher.pairing import complete_pairs

__all__ = ["folder_tables"]

_COUNTS = (2, 4, 6, 8)
_QUICK_COUNTS = (2, 3)
_MOST_REPEATS = 3


def folder_tables(settings: SpeedSettings) -> tuple[SpeedTable, ...]:
    """All pairs of a few photographs, each encoded once or for every pair anew.

    Raises:
        DatasetError: ``root`` holds fewer than two photographs.
    """
    counts = _QUICK_COUNTS if settings.quick else _COUNTS
    if settings.root is not None:
        files = photographs_of(settings.root, counts[-1])
        return (_table(files, "photographs of the given folder", counts, settings),)
    with tempfile.TemporaryDirectory() as folder:
        files = render_photographs(Path(folder), counts[-1], settings.size)
        size = f"{settings.size.width} x {settings.size.height}"
        return (_table(files, f"rendered photographs of {size}", counts, settings),)


def _table(
    files: tuple[Path, ...], title: str, counts: tuple[int, ...], settings: SpeedSettings
) -> SpeedTable:
    options = PairOptions(crops="never")
    matcher = Matcher.from_pretrained(settings.model, device=settings.device, options=options)
    matcher.match(files[0], files[1])
    rows = []
    for count in sorted({min(count, len(files)) for count in counts}):
        pairs = [(files[one], files[two]) for one, two in complete_pairs(count)]

        def cached(pairs: list[tuple[Path, Path]] = pairs) -> None:
            deque(matcher.match_pairs(pairs), maxlen=0)

        def anew(pairs: list[tuple[Path, Path]] = pairs) -> None:
            for one, two in pairs:
                matcher.match(one, two)

        own, reference = measure_in_turns(
            [cached, anew],
            warmup=0,  # the network is warm, and a whole folder is long
            repeats=min(settings.repeats, _MOST_REPEATS),
            device=settings.device,
        )
        extras = {
            "pairs": float(len(pairs)),
            "pairs/s": len(pairs) / own.median,
            "pairs/s of the reference": len(pairs) / reference.median,
        }
        rows.append(SpeedRow(f"{count} photographs", own, speedup(reference, own), extras))
    return SpeedTable(
        f"All pairs of {title}, with the encoder cache",
        "Matcher.match on every pair, which encodes both photographs anew",
        tuple(rows),
        note="Batches of 4 pairs, no crops.",
    )
