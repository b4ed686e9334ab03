"""Training pairs from photographs, one folder a place, through COLMAP (optional extra ``colmap``).

``python -m matcher.training.colmap_import IMAGES_DIR OUT_DIR`` runs structure from motion over all
sub-folders of ``IMAGES_DIR``, turns the models into pair manifests with undistorted images (see
``matcher.training.manifest``) and joins these in ``OUT_DIR/pairs.jsonl``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from matcher.errors import DatasetError
from matcher.training.colmap_pairs import pairs_from_reconstruction
from matcher.training.colmap_sfm import SfmOptions, reconstruct_folder
from matcher.training.guided_matches import GuidedOptions
from matcher.training.manifest import CorrespondencePair, write_pairs

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Reconstruct every sub-folder of a folder of images; one summary line a place."""
    parser = argparse.ArgumentParser(
        prog="python -m matcher.training.colmap_import",
        description="Make training pairs from photographs, one folder a place.",
    )
    parser.add_argument("images_dir", type=Path, help="holds one folder of images a place")
    parser.add_argument("out_dir", type=Path, help="receives pairs.jsonl and one folder a place")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-features", type=int, default=SfmOptions().max_features)
    parser.add_argument("--min-shared-points", type=int, default=40)
    parser.add_argument("--guided", action="store_true", help="add matches along epipolar lines")
    parser.add_argument("--reuse", action="store_true", help="keep models already in OUT_DIR")
    parsed = parser.parse_args(arguments)
    if not parsed.images_dir.is_dir():
        raise DatasetError(f"{parsed.images_dir}: no such folder of images")
    pairs: list[CorrespondencePair] = []
    for place in sorted(path for path in parsed.images_dir.iterdir() if path.is_dir()):
        pairs += _import_place(place, parsed)
        # After every place, so that a run cut short leaves something to train on.
        write_pairs(parsed.out_dir / "pairs.jsonl", pairs)
    return 0


def _import_place(place: Path, parsed: argparse.Namespace) -> list[CorrespondencePair]:
    work = parsed.out_dir / place.name
    known = sorted((work / "models").glob("*")) if parsed.reuse else []
    models = known or reconstruct_folder(
        place, work, parsed.seed, SfmOptions(max_features=parsed.max_features)
    )
    pairs: dict[tuple[str, str], CorrespondencePair] = {}
    for model in models:
        for pair in pairs_from_reconstruction(
            model,
            place,
            work / f"pairs{model.name}",
            min_shared_points=parsed.min_shared_points,
            guided=GuidedOptions() if parsed.guided else None,
            group=place.name,
        ):
            # Models may overlap; the largest comes first and has the better poses.
            pairs.setdefault((pair.image0.name, pair.image1.name), pair)
    images = {name for names in pairs for name in names}
    print(  # noqa: T201 - the output of a program
        f"{place.name}: {len(models)} models, {len(images)} images in {len(pairs)} pairs",
        flush=True,
    )
    return list(pairs.values())


if __name__ == "__main__":
    raise SystemExit(main())
