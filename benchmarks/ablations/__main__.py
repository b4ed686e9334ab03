"""``python -m benchmarks ablations --out DIR ...``: train the variants, write one table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ablations.runs import Evaluation, read_result, run_variant
from benchmarks.ablations.table import as_markdown
from benchmarks.ablations.variants import VARIANTS, Recipe, chosen_variants
from benchmarks.datasets import pairs_jsonl
from benchmarks.run import pinned_threads
from matcher.errors import InputError, MatcherError
from matcher.files import replaced
from matcher.training.config import DataConfig, TrainConfig
from matcher.training.datasets import held_out_photos
from matcher.training.validate import make_validation_set

__all__ = ["main"]

TABLE_NAME = "ablations.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run variants one after another; returns the exit status (2: bad input)."""
    options = _parser().parse_args(sys.argv[1:] if arguments is None else list(arguments))
    try:
        with pinned_threads(options.threads):
            _run(options)
    except MatcherError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was trained is kept; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks ablations",
        description="Short trainings at equal compute, one change each, in one table.",
        epilog="can be interrupted and started again; a variant that is done is not done again",
    )
    defaults = Recipe(DataConfig())
    parser.add_argument("--out", type=Path, required=True, help="runs, results and the table")
    for name in ("scenes", "photos", "pairs", "views"):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="PATH")
    parser.add_argument("--dev", type=Path, help="folder or file of calibrated pairs (pairs.jsonl)")
    names = ", ".join(variant.name for variant in VARIANTS)
    parser.add_argument("--variants", help=f"with commas; all without: {names}")
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="of each variant")
    parser.add_argument("--clock", choices=("cpu", "wall"), default=defaults.clock)
    parser.add_argument("--image-size", type=int, default=defaults.image_size)
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--model", default=defaults.model, help="small, or tiny for a try")
    parser.add_argument("--matches", type=int, default=512, help="correspondences a pair")
    parser.add_argument("--photo-pairs", type=int, default=60, help="held-out pairs to measure")
    parser.add_argument("--photo-size", type=int, default=192, help="their side, pixels")
    parser.add_argument("--dev-pairs", type=int, default=60, help="calibrated pairs to measure")
    parser.add_argument("--view-size", type=int, default=320, help="the network's view of them")
    return parser


def _run(options: argparse.Namespace) -> None:
    if not options.photos:
        raise InputError("--photos", "folders of photographs: some are held out", "none")
    recipe = Recipe(
        DataConfig(
            scene_pools=options.scenes,
            photos=options.photos,
            pair_manifests=options.pairs,
            view_manifests=options.views,
            scene_weight=0.4,
            photo_weight=0.25,
            pair_weight=0.25,
            view_weight=0.1,
            num_matches=options.matches,
        ),
        options.model,
        options.minutes,
        options.clock,
        options.image_size,
        options.batch_size,
        options.learning_rate,
        options.threads,
        options.seed,
    )
    chosen = chosen_variants(options.variants)
    photos = held_out_photos(TrainConfig(data=recipe.data))
    evaluation = Evaluation(
        make_validation_set(photos, options.photo_size, options.photo_pairs),
        None if options.dev is None else pairs_jsonl.read(options.dev),
        options.dev_pairs,
        options.view_size,
    )
    for variant in chosen:
        run_variant(variant, recipe, evaluation, options.out / variant.name, _say)
        # After every variant, so that a row cut short leaves a table; earlier ones belong to it.
        known = [read_result(options.out / one.name) for one in VARIANTS]
        table = as_markdown([one for one in known if one is not None], recipe, evaluation)
        with replaced(options.out / TABLE_NAME) as temporary:
            temporary.write_text(table, "utf-8")
    print((options.out / TABLE_NAME).read_text("utf-8"))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
