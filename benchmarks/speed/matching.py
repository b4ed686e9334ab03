"""How long reciprocal matching takes: the released way and every search of ours, in one run.

    python -m benchmarks.speed.matching [--threads 2] [--repeats 3] [--json]

Descriptor maps of 384 x 512 x 24: Gaussian noise smoothed with sigma 6 px (and a rougher mixture,
where pruning finds less), seen again rotated by 10 degrees, scaled, shifted and with noise added.
The baseline is our own re-implementation, from its description, of what the released systems do:
at every step a dense product in 8192 x 8192 blocks with both its row and its column maxima.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import cv2
import faiss
import numpy as np
import torch
from torch import Tensor

from matcher.matching import MatchingOptions, SearchBackend, reciprocal_matches

__all__ = [
    "BACKENDS",
    "MAPS",
    "Maps",
    "Result",
    "blockwise_both_ways",
    "main",
    "make_maps",
    "match_the_released_way",
    "search_with",
    "share_in_common",
]

_HEIGHT, _WIDTH, _DIMENSIONS = 384, 512, 24
_SPACING = 8
_MARGIN = 100
_RELEASED_BLOCK = 8192
_RELEASED_ITERATIONS = 10
BACKENDS: tuple[SearchBackend, ...] = ("cells", "torch", "faiss")


@dataclass(frozen=True, slots=True)
class Maps:
    """How a pair of descriptor maps is made.

    Attributes:
        name: what the table calls it.
        noise: standard deviation of the noise added to map 1, in that of the field.
        roughness: strength of a second field with sigma 1 px, relative to the smooth one.
    """

    name: str
    noise: float
    roughness: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table.

    Attributes:
        maps: which maps.
        method: which search.
        seconds: median wall time.
        cpu_seconds: median processor time of all threads.
        ratio: how many times faster than the released way, in wall time.
        cpu_ratio: the same in processor time, which other work on the machine disturbs less.
        matches: number of reciprocal matches.
        identical: share of the released way's matches that are found, over the union of both sets.
    """

    maps: str
    method: str
    seconds: float
    cpu_seconds: float
    ratio: float
    cpu_ratio: float
    matches: int
    identical: float


MAPS = (
    Maps("smooth", noise=0.1),
    Maps("noisy", noise=0.3),
    Maps("rough", noise=0.1, roughness=0.5),
    Maps("very rough", noise=0.3, roughness=1.0),
)


def make_maps(
    maps: Maps, seed: int = 0, height: int = _HEIGHT, width: int = _WIDTH
) -> tuple[Tensor, Tensor]:
    """Two (H, W, 24) maps of unit descriptors that show the same field."""
    generator = np.random.default_rng(seed)
    shape = (height + 2 * _MARGIN, width + 2 * _MARGIN, _DIMENSIONS)
    field = _smooth_noise(generator, shape, 6.0)
    if maps.roughness:
        field = field + maps.roughness * _smooth_noise(generator, shape, 1.0)
    inside = slice(_MARGIN, _MARGIN + height), slice(_MARGIN, _MARGIN + width)
    centre = (_MARGIN + width / 2, _MARGIN + height / 2)
    motion = cv2.getRotationMatrix2D(centre, 10.0, 1.1)
    motion[:, 2] += np.array([5.0 - _MARGIN, 3.0 - _MARGIN])
    moved = np.stack(
        [
            cv2.warpAffine(field[..., channel], motion, (width, height), flags=cv2.INTER_LINEAR)
            for channel in range(_DIMENSIONS)
        ],
        axis=-1,
    )
    noise = maps.noise * generator.standard_normal(moved.shape)
    return _unit(field[inside]), _unit(moved + noise)


def match_the_released_way(maps: tuple[Tensor, Tensor]) -> Tensor:
    """(M, 2) raster indexes of the reciprocal matches, sorted."""
    descriptors0, descriptors1 = maps
    width = descriptors0.shape[1]
    rows = descriptors0.flatten(0, 1), descriptors1.flatten(0, 1)
    device = descriptors0.device
    ys = torch.arange(_SPACING // 2, descriptors0.shape[0], _SPACING, device=device)
    xs = torch.arange(_SPACING // 2, width, _SPACING, device=device)
    here = (ys[:, None] * width + xs).flatten()
    there = torch.full_like(here, -1)
    pairs = []
    for _ in range(_RELEASED_ITERATIONS):
        found = blockwise_both_ways(rows[0][here], rows[1])
        moved = found != there
        pairs.append(torch.stack([here[~moved], there[~moved]], dim=1))
        here, there = here[moved], found[moved]
        back = blockwise_both_ways(rows[1][there], rows[0])
        moved = back != here
        pairs.append(torch.stack([here[~moved], there[~moved]], dim=1))
        here, there = back[moved], there[moved]
        if not len(here):
            break
    unique: Tensor = torch.unique(torch.cat(pairs), dim=0)
    return unique


def blockwise_both_ways(queries: Tensor, rows: Tensor) -> Tensor:
    """(M,) index of the most similar row of each query, by complete products."""
    best = torch.full((len(queries),), -torch.inf, device=rows.device)
    index = torch.zeros(len(queries), dtype=torch.int64, device=rows.device)
    column_best = torch.full((len(rows),), -torch.inf, device=rows.device)
    for top in range(0, len(queries), _RELEASED_BLOCK):
        part = slice(top, top + _RELEASED_BLOCK)
        for start in range(0, len(rows), _RELEASED_BLOCK):
            columns = slice(start, start + _RELEASED_BLOCK)
            product = queries[part] @ rows[columns].T
            value, position = product.max(dim=1)
            better = value > best[part]
            best[part] = torch.where(better, value, best[part])
            index[part] = torch.where(better, position + start, index[part])
            # Not needed for the answer; the released way takes and drops it.
            column_best[columns] = torch.maximum(column_best[columns], product.max(dim=0).values)
    return index


def search_with(
    backend: SearchBackend, maps: tuple[Tensor, Tensor], spacing: int = _SPACING
) -> Tensor:
    """(M, 2) raster indexes of the reciprocal matches that one of our searches finds, sorted."""
    options = MatchingOptions(subsample=spacing, border=0, min_sharpness=None, backend=backend)
    matches = reciprocal_matches(*maps, options=options)
    width0, width1 = maps[0].shape[1], maps[1].shape[1]
    index0 = matches.pixels0[:, 1] * width0 + matches.pixels0[:, 0]
    index1 = matches.pixels1[:, 1] * width1 + matches.pixels1[:, 0]
    return torch.stack([index0, index1], dim=1)


def _measure(
    find: Callable[[tuple[Tensor, Tensor]], Tensor], maps: tuple[Tensor, Tensor], repeats: int
) -> tuple[float, float, Tensor]:
    """Median wall and processor seconds after a warm-up on a part of the maps, and the answer."""
    find((maps[0][:64, :64], maps[1][:64, :64]))
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        answer = find(maps)
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return statistics.median(walls), statistics.median(processors), answer


def share_in_common(reference: Tensor, answer: Tensor) -> float:
    """Pairs that both hold, over the union of both."""
    first = {(a, b) for a, b in reference.tolist()}
    second = {(a, b) for a, b in answer.tolist()}
    return len(first & second) / max(len(first | second), 1)


def _compare(maps: Maps, repeats: int) -> list[Result]:
    pair = make_maps(maps)
    wall0, processor, reference = _measure(match_the_released_way, pair, repeats)
    results = [
        Result(maps.name, "released", wall0, processor, 1.0, 1.0, len(reference), 1.0),
    ]
    processor0 = processor
    for backend in BACKENDS:
        wall, processor, answer = _measure(partial(search_with, backend), pair, repeats)
        ratios = wall0 / wall, processor0 / processor
        same = share_in_common(reference, answer)
        results.append(Result(maps.name, backend, wall, processor, *ratios, len(answer), same))
    return results


def _floor() -> str:
    """What complete comparison costs at least, and what any search has to read."""
    seeds = (_HEIGHT // _SPACING) * (_WIDTH // _SPACING)
    pixels = _HEIGHT * _WIDTH
    flops = 2 * 2 * seeds * pixels * _DIMENSIONS
    mebibytes = 2 * pixels * _DIMENSIONS * 4 / 2**20
    cells = 2 * 2 * seeds * (pixels // 64) * (_DIMENSIONS + 2)
    return (
        f"floor: {seeds} seeds there and back against all {pixels} pixels {flops / 1e9:.1f} GFLOP; "
        f"against 8 x 8 cells {cells / 1e9:.2f} GFLOP; reading both maps once {mebibytes:.0f} MiB"
    )


def _smooth_noise(
    generator: np.random.Generator, shape: tuple[int, int, int], sigma: float
) -> np.ndarray:
    noise = generator.standard_normal(shape).astype(np.float32)
    smooth = np.stack(
        [cv2.GaussianBlur(noise[..., channel], (0, 0), sigma) for channel in range(shape[2])],
        axis=-1,
    )
    unit_variance: np.ndarray = smooth / smooth.std()
    return unit_variance


def _unit(field: np.ndarray) -> Tensor:
    unit = field / np.linalg.norm(field, axis=-1, keepdims=True)
    return torch.from_numpy(np.ascontiguousarray(unit, dtype=np.float32))


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed of reciprocal matching")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--maps", nargs="*", default=[maps.name for maps in MAPS])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    faiss.omp_set_num_threads(chosen.threads)
    results = [
        result
        for maps in MAPS
        if maps.name in chosen.maps
        for result in _compare(maps, chosen.repeats)
    ]
    if chosen.json:
        where = {
            "machine": platform.machine(),
            "torch": torch.__version__,
            "faiss": faiss.__version__,
            "threads": chosen.threads,
        }
        print(json.dumps({**where, "results": [asdict(result) for result in results]}))
        return
    print(f"torch {torch.__version__}, faiss {faiss.__version__}, {chosen.threads} threads")
    print(_floor())
    print(
        f"{'maps':<12}{'method':<10}{'wall s':>9}{'CPU s':>9}{'ratio':>8}{'CPU':>8}"
        f"{'matches':>9}{'same':>9}"
    )
    for row in results:
        print(
            f"{row.maps:<12}{row.method:<10}{row.seconds:>9.3f}{row.cpu_seconds:>9.3f}"
            f"{row.ratio:>8.1f}{row.cpu_ratio:>8.1f}{row.matches:>9d}{row.identical:>9.2%}"
        )


if __name__ == "__main__":
    main()
