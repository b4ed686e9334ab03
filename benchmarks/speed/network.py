"""How long the network takes: encode, decode, heads, and what image size costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.tables import SpeedRow, SpeedSettings, SpeedTable
from benchmarks.speed.timing import Work, measure_in_turns, speedup
from heads import DenseHead
from matcher.checkpoints import load_checkpoint
from matcher.model.network import EncodedViews, TwoViewNetwork
from matcher.structures import ImageSize

__all__ = ["network_tables"]

_LONG_SIDES = (256, 384, 512, 768, 1024)
_QUICK_LONG_SIDES = (64, 128)


def network_tables(settings: SpeedSettings) -> tuple[SpeedTable, ...]:
    """The parts at one size, and the whole at several."""
    network = load_checkpoint(settings.model, settings.device).network
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        return _parts_table(network, settings), _size_table(network, settings)


def _pixels(network: TwoViewNetwork, size: ImageSize, device: str) -> Tensor:
    """(2, 3, H, W) noise; the time does not depend on what is seen."""
    patch = network.config.patch_size
    height, width = (max(1, round(side / patch)) * patch for side in (size.height, size.width))
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, height, width, generator=generator).mul(2).sub(1).to(device)


def _parts_table(network: TwoViewNetwork, settings: SpeedSettings) -> SpeedTable:
    pixels = _pixels(network, settings.size, settings.device)
    both = network.encode(pixels)
    view0, view1 = both[:1], both[1:]
    layers0, layers1 = network.decoder(view0, view1)
    head1 = network.head0 if network.head1 is None else network.head1

    def heads() -> None:
        points0, points1 = network.point_layers(layers0, layers1, view0, view1)
        _run_head(network.head0, layers0, view0, points0)
        _run_head(head1, layers1, view1, points1)

    parts: dict[str, Work] = {
        "encode one image": partial(network.encode, pixels[:1]),
        "encode two images": partial(network.encode, pixels),
        "decode a pair": partial(network.decoder, view0, view1),
        "pointmaps' own decoder blocks and both heads": heads,
        "whole pair": partial(network, pixels[:1], pixels[1:]),
    }
    rows = []
    for name, work in parts.items():
        flops = _count_flops(work)
        floor = _matrix_product(flops, settings.device)
        own, theirs = measure_in_turns(
            [work, floor],
            warmup=settings.warmup,
            repeats=settings.repeats,
            device=settings.device,
        )
        extras = {"GFLOP": flops / 1e9, "GFLOP/s": flops / 1e9 / own.median}
        rows.append(SpeedRow(name, own, speedup(theirs, own), extras))
    height, width = pixels.shape[2:]
    return SpeedTable(
        f"Network at {width} x {height}, batch of one pair, float32",
        "one square float32 matrix product of as many operations as the row has, in turns with it",
        tuple(rows),
        note=f"{network.num_parameters / 1e6:.2f} million parameters.",
    )


def _run_head(
    head: DenseHead, layers: list[Tensor], view: EncodedViews, point_layers: list[Tensor] | None
) -> None:
    head(layers, view.grid, view.pyramid, view.pixels, point_layers)


def _count_flops(work: Callable[[], object]) -> int:
    """Operations of products, convolutions and attention; multiplying and adding are two."""
    # The counter does not know the CPU's fused attention; the plain form has the same products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def _matrix_product(flops: int, device: str) -> Work:
    side = max(8, round((flops / 2) ** (1 / 3)))
    generator = torch.Generator().manual_seed(0)
    left = torch.rand(side, side, generator=generator).to(device)
    return partial(torch.mm, left, left.T.contiguous())


def _size_table(network: TwoViewNetwork, settings: SpeedSettings) -> SpeedTable:
    sides = _QUICK_LONG_SIDES if settings.quick else _LONG_SIDES
    reference = max(settings.size.height, settings.size.width)
    if reference not in sides:
        sides = tuple(sorted((*sides, reference)))
    works, tokens, names = [], [], []
    for side in sides:
        size = ImageSize(max(1, side * 3 // 4), side)
        pixels = _pixels(network, size, settings.device)
        works.append(partial(network, pixels[:1], pixels[1:]))
        tokens.append(pixels.shape[2] * pixels.shape[3] // network.config.patch_size**2)
        names.append(f"{pixels.shape[3]} x {pixels.shape[2]}")
    measured = measure_in_turns(
        works, warmup=settings.warmup, repeats=settings.repeats, device=settings.device
    )
    base = sides.index(reference)
    rows = tuple(
        SpeedRow(
            name,
            own,
            None if index == base else speedup(measured[base], own),
            {"tokens an image": count, "µs a token": 1e6 * own.median / (2 * count)},
        )
        for index, (name, own, count) in enumerate(zip(names, measured, tokens, strict=True))
    )
    return SpeedTable(
        "Network against image size, one pair", f"the same network at {names[base]}", rows
    )
