"""COLMAP's incremental and global mappers on the matches of many pairs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from matcher.colmap import import_pycolmap, quiet, reason_of
from matcher.errors import DatasetError, InputError
from matcher.export.colmap import ColmapExport, write_database
from matcher.export.mappers import Mapper, MapperRun
from matcher.export.verification import VerificationOptions
from matcher.match_store import MatchStore
from matcher.pair_records import PairRecord
from matcher.photographs import Photographs
from matcher.reconstruction import Reconstruction
from matcher.reconstruction.colmap_model import read_model
from matcher.structures import Camera

__all__ = ["map_with_colmap"]


def map_with_colmap(
    records: MatchStore | Iterable[PairRecord],
    photographs: Photographs,
    out: str | os.PathLike[str],
    *,
    mapper: Mapper = "incremental",
    cameras: Mapping[str, Camera] | None = None,
    cell_px: float | None = None,
    options: VerificationOptions | None = None,
) -> Reconstruction:
    """Let COLMAP put the matches of many pairs together.

    Args:
        records: the pairs, or the store that has them.
        photographs: what may be reconstructed; also those without a pair.
        out: folder, made if it is not there; receives ``database.db`` and the models ``sparse/0``
            (the largest), ``sparse/1``, ... What was there under these names is replaced.
        mapper: ``"incremental"`` (image by image) or ``"global"`` (all at once).
        cameras: known intrinsics by name, in original pixels; kept as they are.
        cell_px: how widely keypoints are merged, original pixels; see ``merge_tracks``.
        options: when matches agree.

    Returns:
        the largest model. Photographs without a place in it are listed with the reason, those of
        smaller models too; nothing registered is a reconstruction without images.

    Raises:
        DatasetError: the database or the models cannot be written.
        InputError: an unknown mapper, and as ``write_database``.
        MissingDependencyError: pycolmap is not installed.
    """
    if mapper not in get_args(Mapper):
        raise InputError("mapper", " or ".join(get_args(Mapper)), repr(mapper))
    pycolmap = import_pycolmap("mapping with COLMAP")
    options = options or VerificationOptions()
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("out", "a folder that can be made", f"{out}: {error.strerror}") from None
    pairs = records.records(keep_pointmaps=False) if isinstance(records, MatchStore) else records
    export = write_database(
        pairs,
        folder / "database.db",
        photographs=photographs,
        cameras=cameras,
        cell_px=cell_px,
        options=options,
    )
    models = _map(pycolmap, folder, export, photographs, mapper, options)
    found = _answer(models, export, photographs)
    if isinstance(records, MatchStore):
        found = replace(found, model=records.model, licence=records.licence)
    return found


def _map(
    pycolmap: Any,
    folder: Path,
    export: ColmapExport,
    photographs: Photographs,
    mapper: Mapper,
    options: VerificationOptions,
) -> list[Path]:
    """Folders of the models, largest first."""
    models = folder / "sparse"
    try:
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as made:
            staging = Path(made)
            run = MapperRun(
                pycolmap, staging, folder / "database.db", photographs.root, export, options.seed
            )
            with quiet(pycolmap):
                found = run.models(mapper) if export.num_geometries else []
            ordered = staging / "sparse"
            ordered.mkdir()
            for place, model in enumerate(found):
                model.rename(ordered / str(place))
            shutil.rmtree(models, ignore_errors=True)
            ordered.rename(models)
    except Exception as error:  # pycolmap raises whatever its checks and solvers throw
        raise DatasetError(f"{folder}: COLMAP's mapper failed ({reason_of(error)})") from None
    return [models / str(place) for place in range(len(found))]


def _answer(models: list[Path], export: ColmapExport, photographs: Photographs) -> Reconstruction:
    if not models:
        found = Reconstruction(())
        reason = "COLMAP could not reconstruct anything from the matches"
    else:
        found = read_model(models[0])
        reason = "COLMAP could not register it"
    unregistered: dict[str, str] = {}
    registered = set(found.names)
    for model in models[1:]:
        names = read_model(model).names
        for name in names:
            if name not in registered:
                unregistered.setdefault(
                    name, f"it is in another, smaller model ({model.name}; {len(names)} images)"
                )
    for name in (*photographs.names, *export.merged.names):
        if name not in registered and name not in unregistered:
            unregistered[name] = export.merged.unmatched.get(
                name, reason if name in export.merged.names else "it cannot be read"
            )
    return replace(found, unregistered=unregistered)
