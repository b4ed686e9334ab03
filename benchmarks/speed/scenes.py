"""How many rendered training pairs a second: ``python -m benchmarks speed.scenes``.

Times every stage on whatever device there is, and counts the stage's element operations and bytes:
from these follows what a faster device can reach, operator by operator and with the operators of a
stage fused into one kernel.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.speed.timing import measure
from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic.batches import PlaceOptions
from matcher.synthetic.cameras import sample_cameras
from matcher.synthetic.layouts import SceneOptions, sample_scenes
from matcher.synthetic.lens import photograph
from matcher.synthetic.pairs import correspondences, relative_pose
from matcher.synthetic.patterns import role_textures
from matcher.synthetic.render import RenderedViews, RenderOptions, render
from matcher.synthetic.scene import Cameras, Scene
from matcher.synthetic.textures import MipAtlas, build_atlas
from matcher.synthetic.weather import Weather, sample_weather

__all__ = ["SceneSpeed", "Stage", "measure_scenes", "report_lines"]

_SEED = 5
_FUSED_BYTES = 4 * (9 + 22 + 8 + 8)
"""A pixel's least traffic when everything is fused: geometry and face rows, texels, results."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, per pair.

    Attributes:
        name: of the stage.
        seconds: of wall time.
        operations: elements that operators wrote: at least that many floating point operations.
        gigabytes: read and written when every operator is a kernel of its own.
        launches: operators called, for the whole batch.
    """

    name: str
    seconds: float
    operations: float
    gigabytes: float
    launches: int


@dataclass(frozen=True, slots=True)
class SceneSpeed:
    """What was measured.

    Attributes:
        device, torch: where.
        size: side of the images.
        batch: pairs rendered together.
        primitives: a scene.
        stages: in order; they add up.
    """

    device: str
    torch: str
    size: int
    batch: int
    primitives: int
    stages: tuple[Stage, ...]

    @property
    def pairs_per_second(self) -> float:
        """Over all stages."""
        return 1 / sum(stage.seconds for stage in self.stages)


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts elements, bytes and calls of every operator that computes something."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = self.bytes = self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        places = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        fresh = [out for out in outputs if out.untyped_storage().data_ptr() not in places]
        if fresh or func._schema.name.endswith("_"):
            self.calls += 1
            self.elements += sum(out.numel() for out in outputs)
            # A broadcast input is read from a cache: its own elements count, not the output's.
            moved = [*inputs, *outputs]
            self.bytes += sum(
                min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in moved
            )
        return result


@contextmanager
def _counting() -> Iterator[_Count]:
    with _Count() as count:
        yield count


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """Everything the stages need, made once."""

    atlas: MipAtlas
    scene: Scene
    cameras: Cameras
    weather: Weather
    views: RenderedViews
    size: ImageSize
    batch: int
    options: PlaceOptions


def _prepare(batch: int, side: int, device: str, options: PlaceOptions) -> _Work:
    generator = torch.Generator().manual_seed(_SEED)
    atlas = build_atlas(*role_textures(generator, 4, 256)).to(device)
    scene = sample_scenes(generator, batch, atlas, options.scenes)
    size = ImageSize(side, side)
    cameras = sample_cameras(generator, scene, 2, size, options.cameras)
    weather = sample_weather(generator, scene, 2, options.weather)
    views = render(scene, cameras, size, options.render, weather)
    return _Work(atlas, scene, cameras, weather, views, size, batch, options)


def _stages(work: _Work) -> list[tuple[str, Callable[[], object]]]:
    """Cumulative where a stage cannot be called alone: see ``measure_scenes``."""
    generator = torch.Generator().manual_seed(_SEED)
    full = work.options.render
    bare = replace(full, edge_share=0.0, shadows=False, mirror_share=0.0)

    def rendered(options: RenderOptions) -> Callable[[], object]:
        return lambda: render(work.scene, work.cameras, work.size, options, work.weather)

    def truth() -> object:
        depth, k, pose = work.views.depth, work.cameras.k, work.cameras.cam_from_world
        relative = relative_pose(pose[:, 0], pose[:, 1])
        return correspondences(depth[:, 0], k[:, 0], depth[:, 1], k[:, 1], relative)

    return [
        ("layouts", lambda: sample_scenes(generator, work.batch, work.atlas, work.options.scenes)),
        (
            "cameras",
            lambda: sample_cameras(generator, work.scene, 2, work.size, work.options.cameras),
        ),
        ("rays, surfaces, light", rendered(bare)),
        ("+ shadows", rendered(replace(bare, shadows=True))),
        ("+ outlines", rendered(replace(bare, shadows=True, edge_share=full.edge_share))),
        ("+ reflections", rendered(full)),
        ("lens", lambda: photograph(generator, work.views, work.options.lens)),
        ("correspondences", truth),
    ]


def measure_scenes(
    batch: int = 16,
    side: int = 224,
    device: str = "cpu",
    repeats: int = 3,
    options: PlaceOptions | None = None,
) -> SceneSpeed:
    """Times and counts of all stages; two fresh views a pair.

    Raises:
        InputError: no positive batch, or a side below 32.
    """
    if batch < 1 or side < 32 or repeats < 1:
        raise InputError("batch, side, repeats", "at least 1, 32, 1", f"{batch}, {side}, {repeats}")
    work = _prepare(batch, side, device, options or PlaceOptions())
    stages: list[Stage] = []
    before = Stage("", 0.0, 0.0, 0.0, 0)
    for name, call in _stages(work):
        taken = measure(call, warmup=1, repeats=repeats, device=device).median / batch
        with _counting() as count:
            call()
        now = Stage(
            name.removeprefix("+ "),
            taken,
            count.elements / batch,
            count.bytes / batch / 1e9,
            count.calls,
        )
        grown = name.startswith("+ ")
        base = before if grown else Stage("", 0.0, 0.0, 0.0, 0)
        stages.append(
            Stage(
                now.name,
                max(0.0, now.seconds - base.seconds),
                max(0.0, now.operations - base.operations),
                max(0.0, now.gigabytes - base.gigabytes),
                max(0, now.launches - base.launches),
            )
        )
        before = now
    return SceneSpeed(
        f"{device} ({platform.processor() or platform.machine()}, "
        f"{torch.get_num_threads()} threads)",
        torch.__version__,
        side,
        batch,
        work.scene.counts.total,
        tuple(stages),
    )


def report_lines(result: SceneSpeed, tflops: float, terabytes: float) -> list[str]:
    """A table, and what a device of that many TFLOP/s and TB/s could do at most."""
    total = sum(stage.seconds for stage in result.stages)
    lines = [
        f"{result.device}, torch {result.torch}: {result.size} px, batch {result.batch}, "
        f"{result.primitives} primitives a scene",
        f"{'stage':<24}{'ms a pair':>10}{'share':>8}{'Mop':>9}{'GB':>8}{'launches':>10}",
    ]
    for stage in result.stages:
        lines.append(
            f"{stage.name:<24}{1e3 * stage.seconds:>10.2f}{stage.seconds / total:>8.0%}"
            f"{stage.operations / 1e6:>9.0f}{stage.gigabytes:>8.3f}{stage.launches:>10d}"
        )
    operations = sum(stage.operations for stage in result.stages)
    gigabytes = sum(stage.gigabytes for stage in result.stages)
    pixels = 2 * result.size**2
    fused = max(operations / (tflops * 1e12), pixels * _FUSED_BYTES / (terabytes * 1e12))
    lines += [
        f"{result.pairs_per_second:.1f} pairs a second, two fresh views a pair",
        f"{operations / pixels:.0f} operations a pixel, "
        f"{operations / pixels / result.primitives:.0f} a pixel and primitive; "
        f"{1e9 * gigabytes / pixels / result.primitives:.0f} bytes a pixel and primitive unfused",
        f"floor at {tflops:g} TFLOP/s, {terabytes:g} TB/s: at most "
        f"{terabytes * 1e3 / gigabytes:.0f} pairs a second operator by operator, "
        f"{1 / fused:.0f} with each stage one kernel",
    ]
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed of the renderer of training pairs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=16, help="pairs rendered together")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layout", help="one layout only, for example facades")
    parser.add_argument("--compiled", action="store_true", help="torch.compile the ray-caster")
    parser.add_argument("--together", action="store_true", help="no culling, as on a GPU")
    parser.add_argument("--tflops", type=float, default=30.0, help="of the device to judge by")
    parser.add_argument("--terabytes", type=float, default=2.0, help="a second, of that device")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    scenes = SceneOptions.everything()
    if given.layout:
        names = SceneOptions.__dataclass_fields__
        if given.layout not in names:
            raise InputError("--layout", ", ".join(names), given.layout)
        scenes = SceneOptions(**{name: float(name == given.layout) for name in names})
    cull = False if given.together or given.compiled else None
    options = PlaceOptions(scenes, render=RenderOptions(compiled=given.compiled, cull=cull))
    result = measure_scenes(given.batch, given.size, given.device, given.repeats, options)
    if given.json:
        print(json.dumps({**asdict(result), "pairs_per_second": result.pairs_per_second}))
        return
    print("\n".join(report_lines(result, given.tflops, given.terabytes)))


if __name__ == "__main__":
    main()
