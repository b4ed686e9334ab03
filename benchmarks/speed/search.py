"""How long reciprocal search takes: the released way, the complete comparison, and ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from benchmarks.speed.matching import (
    BACKENDS,
    MAPS,
    Maps,
    blockwise_both_ways,
    make_maps,
    match_the_released_way,
    search_with,
    share_in_common,
)
from benchmarks.speed.tables import SpeedRow, SpeedSettings, SpeedTable
from benchmarks.speed.timing import measure_in_turns, speedup

__all__ = ["full_exact_matches", "search_tables"]

_BOTH_MAPS = tuple[Tensor, Tensor]
Search = Callable[[], Tensor]
_MOST_REPEATS = 3  # the references take seconds


def search_tables(settings: SpeedSettings) -> tuple[SpeedTable, ...]:
    """Seeds against the released way on every kind of map; all pixels by complete comparison."""
    size = (48, 64) if settings.quick else (384, 512)
    kinds = MAPS[:1] if settings.quick else MAPS
    tables = [_seeds_table(maps, size, settings) for maps in kinds]
    # Complete comparison grows with the fourth power of the side: a quarter of the pixels.
    tables.append(_complete_table(MAPS[0], (size[0] // 2, size[1] // 2), settings))
    return tuple(tables)


def full_exact_matches(maps: _BOTH_MAPS) -> Tensor:
    """(M, 2) raster indexes of all mutual nearest neighbours, by two complete comparisons."""
    rows0, rows1 = maps[0].flatten(0, 1), maps[1].flatten(0, 1)
    forward, backward = blockwise_both_ways(rows0, rows1), blockwise_both_ways(rows1, rows0)
    here = torch.arange(len(rows0), device=rows0.device)
    kept = backward[forward] == here
    return torch.stack([here[kept], forward[kept]], dim=1)


def _seeds_table(maps: Maps, size: tuple[int, int], settings: SpeedSettings) -> SpeedTable:
    pair = _on_device(maps, size, settings)
    works: dict[str, Search] = {"released way": partial(match_the_released_way, pair)}
    for backend in BACKENDS:
        works[f"ours, {backend}"] = partial(search_with, backend, pair)
    return SpeedTable(
        f"Reciprocal search, seeds 8 pixels apart, {maps.name} maps of {size[1]} x {size[0]} x 24",
        "the released systems' search, re-implemented from its description (dense products in "
        "blocks with the maxima of rows and columns)",
        _rows(works, settings),
    )


def _complete_table(maps: Maps, size: tuple[int, int], settings: SpeedSettings) -> SpeedTable:
    pair = _on_device(maps, size, settings)
    works: dict[str, Search] = {"full exact": partial(full_exact_matches, pair)}
    for backend in BACKENDS:
        works[f"ours, {backend}, every pixel"] = partial(search_with, backend, pair, 1)
    for backend in BACKENDS:
        works[f"ours, {backend}, seeds 8 pixels apart"] = partial(search_with, backend, pair)
    return SpeedTable(
        f"All mutual nearest neighbours, {maps.name} maps of {size[1]} x {size[0]} x 24",
        "every pixel of either map compared with every pixel of the other by dense products",
        _rows(works, settings),
        note="Seeds find a spread subset of the matches.",
    )


def _on_device(maps: Maps, size: tuple[int, int], settings: SpeedSettings) -> _BOTH_MAPS:
    map0, map1 = make_maps(maps, height=size[0], width=size[1])
    return map0.to(settings.device), map1.to(settings.device)


def _rows(works: Mapping[str, Search], settings: SpeedSettings) -> tuple[SpeedRow, ...]:
    """Everything in turns; the first is the reference."""
    answers = [work() for work in works.values()]  # a warm-up as well
    measured = measure_in_turns(
        list(works.values()),
        warmup=max(0, settings.warmup - 1),
        repeats=min(settings.repeats, _MOST_REPEATS),
        device=settings.device,
    )
    return tuple(
        SpeedRow(
            name,
            own,
            None if own is measured[0] else speedup(measured[0], own),
            {"matches": len(answer), "in common %": 100 * share_in_common(answers[0], answer)},
        )
        for name, own, answer in zip(works, measured, answers, strict=True)
    )
