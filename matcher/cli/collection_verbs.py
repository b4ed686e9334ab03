"""``pairs`` and ``run``: which photographs of a folder to match, and matching them into a store."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from matcher import Matcher, PairOptions
from matcher.cli import pair_verbs
from matcher.cli.app import ERRORS, EXIT_NO_ANSWER, app, fail, progress_bar, say, write_json
from matcher.cli.pair_verbs import (
    AsJson,
    CropChoice,
    Crops,
    Device,
    MaxSize,
    ModelName,
    PrecisionChoice,
    PrecisionName,
    Seed,
    Symmetric,
    TopK,
    TurnChoice,
    Turns,
)
from matcher.collection_run import RunSummary, run_pairs
from matcher.encoding_cache import MemoryLimits
from matcher.errors import InputError
from matcher.localization.retrieval import RetrievalIndex
from matcher.match_store import MatchStore
from matcher.pairing import (
    complete_pairs,
    name_pairs,
    one_to_all_pairs,
    read_pairs,
    window_pairs,
    write_pairs,
)
from matcher.photographs import Photographs

__all__ = ["pairs", "run"]

_INTERRUPTED = 130
_BYTES_PER_GIB = 1 << 30


class KeptPointmaps(str, Enum):
    """Whether pointmaps are kept, and how exactly."""

    none = "none"
    float16 = "float16"
    float32 = "float32"


@app.command()
def pairs(
    folder: Annotated[Path, typer.Argument(help="A folder of photographs.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The pair file to write: two names a line, as hloc.")],
    window: Annotated[
        int | None, typer.Option(help="Each with so many that follow it, by name.")
    ] = None,
    cyclic: Annotated[
        bool, typer.Option("--cyclic", help="With --window: the first follows the last.")
    ] = False,
    one_to_all: Annotated[
        str | None, typer.Option(metavar="NAME", help="One photograph with every other.")
    ] = None,
    retrieval: Annotated[
        int | None, typer.Option(metavar="K", help="Each with the K that look most alike.")
    ] = None,
    model: ModelName = "small",
    max_size: MaxSize = 512,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """List which photographs of a folder to match: all with all, unless an option says less."""
    chosen = [window is not None, one_to_all is not None, retrieval is not None]
    if sum(chosen) > 1:
        raise InputError(
            "--window, --one-to-all, --retrieval", "one of them at most", f"{sum(chosen)}"
        )
    if cyclic and window is None:
        raise InputError("--cyclic", "--window beside it", "--cyclic alone")
    if not out.parent.is_dir() or out.is_dir():
        raise InputError("--out", "a file in a folder that exists", f"{out}")
    photographs = Photographs.from_folder(folder)
    if len(photographs) < 2:
        raise InputError("folder", "at least two photographs", f"1 in {folder}")
    duplicates = photographs.duplicates()
    count, names = len(photographs), photographs.names
    if window is not None:
        how = f"each with {window} that follow"
        found = window_pairs(count, _at_least_one("--window", window), cyclic=cyclic)
    elif one_to_all is not None:
        how = f"{one_to_all} with every other"
        if one_to_all not in names:
            raise InputError("--one-to-all", f"a photograph in {folder}", one_to_all)
        found = one_to_all_pairs(count, names.index(one_to_all))
    elif retrieval is not None:
        how = f"each with the {retrieval} that look most alike"
        neighbours = _at_least_one("--retrieval", retrieval)
        matcher = pair_verbs.load_matcher(model, device, PairOptions(max_size=max_size))
        with progress_bar("describing") as report:
            index = RetrievalIndex.build(matcher, photographs, progress=report)
        found = index.pairs(neighbours)
    else:
        how = "all with all"
        found = complete_pairs(count)
    write_pairs(out, name_pairs(names, found))
    if as_json:
        write_json(
            {
                "out": str(out),
                "photographs": count,
                "pairs": len(found),
                "duplicates": [list(both) for both in duplicates],
            }
        )
    else:
        say(f"{len(found)} pairs of {count} photographs ({how})")
        _say_duplicates(duplicates)
        say(f"wrote {out}")


def _at_least_one(option: str, value: int) -> int:
    if value < 1:
        raise InputError(option, "at least 1", f"{value}")
    return value


@app.command()
def run(
    pairs: Annotated[
        Path, typer.Argument(help="A pair file: two names a line.", show_default=False)
    ],
    images: Annotated[Path, typer.Option(help="The folder the names are in.")],
    out: Annotated[Path, typer.Option(help="The store: a folder, made or gone on with.")],
    model: ModelName = "small",
    max_size: MaxSize = 512,
    crops: CropChoice = Crops.auto,
    turns: TurnChoice = Turns.auto,
    symmetric: Symmetric = False,
    precision: PrecisionChoice = PrecisionName.auto,
    top_k: TopK = None,
    pointmaps: Annotated[
        KeptPointmaps, typer.Option(help="Keep pointmaps, which reconstruct needs of some models.")
    ] = KeptPointmaps.none,
    batch_size: Annotated[int, typer.Option(min=1, help="Most pairs decoded together.")] = 4,
    host_gib: Annotated[float, typer.Option(min=0, help="Main memory for encodings, GiB.")] = 2,
    device_gib: Annotated[float, typer.Option(min=0, help="GPU memory for encodings, GiB.")] = 2,
    cache_folder: Annotated[
        Path | None, typer.Option(help="Where encodings go that memory cannot hold.")
    ] = None,
    device: Device = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Match the pairs of a pair file into a store; the same command goes on where it stopped."""
    asked = read_pairs(pairs)
    if not asked:
        raise InputError("PAIRS", "at least one pair", f"none in {pairs}")
    if not images.is_dir():
        raise InputError("--images", "a folder of photographs", f"{images}")
    photographs = Photographs(images, tuple(dict.fromkeys(name for both in asked for name in both)))
    if not any((images / name).is_file() for name in photographs.names):
        raise InputError("--images", f"the photographs of {pairs}", f"none of them in {images}")
    memory = MemoryLimits(
        int(device_gib * _BYTES_PER_GIB), int(host_gib * _BYTES_PER_GIB), cache_folder
    )
    options = pair_verbs._options(
        max_size, crops, turns, precision, seed, symmetric=symmetric, top_k=top_k
    )
    matcher = pair_verbs.load_matcher(model, device, options)
    with MatchStore.resume(
        out, photographs, matcher.info, options, pointmaps=pointmaps.value
    ) as store:
        for names in store.damaged:
            ERRORS.print(f"damaged, to be matched again: {' '.join(names)}", markup=False)
        try:
            summary = _run(matcher, store, asked, batch_size, memory)
        except KeyboardInterrupt:
            fail(
                f"interrupted; {out} holds {len(store)} pairs: the same command goes on from there"
            )
            raise typer.Exit(_INTERRUPTED) from None
    _tell(summary, store, photographs, as_json=as_json)
    if not summary.num_matched:
        raise typer.Exit(EXIT_NO_ANSWER)


def _run(
    matcher: Matcher,
    store: MatchStore,
    asked: list[tuple[str, str]],
    batch_size: int,
    memory: MemoryLimits,
) -> RunSummary:
    with progress_bar("matching") as report:
        return run_pairs(
            matcher, store, asked, batch_size=batch_size, memory=memory, progress=report
        )


def _tell(
    summary: RunSummary, store: MatchStore, photographs: Photographs, *, as_json: bool
) -> None:
    duplicates = _duplicates(photographs)
    if as_json:
        values: dict[str, Any] = {
            "store": str(store.path),
            "pairs": summary.num_pairs,
            "matched": summary.num_matched,
            "without_matches": summary.num_without_matches,
            "failed": [
                {"pair": [failure.name0, failure.name1], "reason": failure.reason}
                for failure in summary.failed
            ],
            "damaged": [list(names) for names in store.damaged],
            "duplicates": [list(both) for both in duplicates],
            "encodings": summary.num_encodings,
            "resumed": summary.num_resumed,
            "seconds": round(summary.seconds, 3),
            "model": store.model,
            "licence": store.licence,
        }
        write_json(values)
        return
    say(
        f"{summary.num_matched} of {summary.num_pairs} pairs have matches, "
        f"{summary.num_without_matches} have none, {len(summary.failed)} failed"
    )
    for failure in summary.failed:
        say(f"{failure.name0} {failure.name1}: {failure.reason}")
    _say_duplicates(duplicates)
    say(
        f"{summary.num_encodings} encodings, {summary.num_resumed} pairs were there already; "
        f"{summary.seconds:.1f} s with {store.model} ({store.licence})"
    )
    say(f"wrote {store.path}")


def _duplicates(photographs: Photographs) -> list[tuple[str, str]]:
    there = [name for name in photographs.names if (photographs.root / name).is_file()]
    return Photographs(photographs.root, tuple(there)).duplicates()


def _say_duplicates(duplicates: list[tuple[str, str]]) -> None:
    for kept, duplicate in duplicates:
        say(f"{duplicate} is a duplicate of {kept}")
