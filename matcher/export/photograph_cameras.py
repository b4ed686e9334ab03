"""The camera that each photograph of an export is given: known, from EXIF, or a guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from matcher.alignment.collection import make_collection, undistorted_pairs
from matcher.alignment.focals import with_matched_focals
from matcher.alignment.observations import gather_observations
from matcher.alignment.sparse_options import SparseOptions
from matcher.errors import InputError
from matcher.geometry.pixels import image_center
from matcher.images import exif_focal, read_image
from matcher.pair_records import PairRecord
from matcher.photographs import Photographs
from matcher.structures import Camera, ImageSize

__all__ = ["TYPICAL_FOCAL", "PhotographCamera", "photograph_cameras"]

# In longer sides of the photograph; what COLMAP assumes of one that does not tell.
TYPICAL_FOCAL = 1.2


@dataclass(frozen=True, slots=True)
class PhotographCamera:
    """Intrinsics of one photograph.

    Attributes:
        camera: in original pixels.
        size: of the photograph.
        is_known: whether the caller gave them.
        has_focal: whether the focal is more than a guess: known, or from EXIF.
    """

    camera: Camera
    size: ImageSize
    is_known: bool
    has_focal: bool


def photograph_cameras(
    records: Sequence[PairRecord],
    known: Mapping[str, Camera],
    photographs: Photographs | None,
    *,
    seed: int = 0,
) -> dict[str, PhotographCamera]:
    """The camera of every photograph that was matched or whose file can be read, sorted by name.

    A focal is known, or stands in the file (EXIF), or is the one that the matches of many pairs fit
    best (``matcher.alignment.focals``), or typical.

    Args:
        records: the pairs.
        known: intrinsics by name.
        photographs: files; those that cannot be read and were not matched are left out.
        seed: of the search for focals.

    Raises:
        InputError: a known camera for a photograph of another size, or for none; a photograph with
            two sizes.
    """
    files = _files(photographs)
    sizes = _sizes(records, files)
    for name, camera in known.items():
        if name not in sizes:
            raise InputError("cameras", "names of photographs", name)
        if camera.size is not None and camera.size != sizes[name]:
            raise InputError(f"camera of {name}", f"size {sizes[name]}", f"{camera.size}")
    found = {
        name: PhotographCamera(camera, sizes[name], is_known=True, has_focal=True)
        for name, camera in known.items()
    }
    for name, path in files.items():
        if name in found or name not in sizes:
            continue
        focal = exif_focal(path)
        if focal is not None:
            found[name] = PhotographCamera(_radial(focal, sizes[name]), sizes[name], False, True)
    trusted = {name: camera.camera for name, camera in found.items()}
    guesses = _matched_focals(records, trusted, seed)
    for name, size in sizes.items():
        if name not in found:
            focal = guesses.get(name) or TYPICAL_FOCAL * max(size.width, size.height)
            found[name] = PhotographCamera(_radial(focal, size), size, False, False)
    return {name: found[name] for name in sorted(found)}


def _radial(focal: float, size: ImageSize) -> Camera:
    return Camera("SIMPLE_RADIAL", (focal, *image_center(size), 0.0), size)


def _files(photographs: Photographs | None) -> dict[str, Path]:
    if photographs is None:
        return {}
    return {name: photographs.root / name for name in photographs.names}


def _sizes(records: Sequence[PairRecord], files: Mapping[str, Path]) -> dict[str, ImageSize]:
    sizes: dict[str, ImageSize] = {}
    for record in records:
        for name, size in ((record.name0, record.size0), (record.name1, record.size1)):
            if sizes.setdefault(name, size) != size:
                raise InputError("records", f"one size of {name}", f"{sizes[name]} and {size}")
    for name, path in files.items():
        if name not in sizes:
            with suppress(InputError):
                sizes[name] = ImageSize(*read_image(path).shape[:2])
    return sizes


def _matched_focals(
    records: Sequence[PairRecord], trusted: Mapping[str, Camera], seed: int
) -> dict[str, float]:
    """Focals of the photographs whose cameras are not trusted, by name."""
    usable = [record for record in records if len(record)]
    names = {name for record in usable for name in record.names}
    if not usable or names <= set(trusted):
        return {}
    options = SparseOptions(seed=seed)
    observations = gather_observations(usable, options.block_px)
    collection = make_collection(observations, trusted, {}, options)
    pairs = undistorted_pairs(observations.pairs, collection.known_cameras)
    matched = with_matched_focals(collection, pairs, options)
    return {
        name: camera.focals[0]
        for name, camera in zip(matched.names, matched.cameras, strict=True)
        if name not in trusted
    }
