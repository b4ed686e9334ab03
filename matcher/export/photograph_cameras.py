"""The camera that each photograph of an export is given: known, from EXIF, or guessed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from matcher.colmap import import_pycolmap, quiet
from matcher.errors import InputError
from matcher.geometry.pixels import image_center
from matcher.images import read_image
from matcher.photographs import Photographs
from matcher.structures import Camera, ImageSize

__all__ = ["PhotographCamera", "photograph_cameras"]

# What COLMAP assumes of a photograph that does not tell: focal = 1.2 times the longer side.
_GUESSED_FOCAL = 1.2


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
    sizes: Mapping[str, ImageSize],
    known: Mapping[str, Camera],
    photographs: Photographs | None,
) -> dict[str, PhotographCamera]:
    """The camera of every photograph that has a size or a file that can be read.

    Args:
        sizes: of photographs by name.
        known: intrinsics by name.
        photographs: files; those that cannot be read and are not in ``sizes`` are left out.

    Raises:
        InputError: a known camera for a photograph of another size, or for none.
    """
    there = dict(sizes)
    for name in photographs.names if photographs is not None else ():
        if name not in there:
            with suppress(InputError):
                there[name] = ImageSize(*read_image(photographs.path(name)).shape[:2])
    for name, camera in known.items():
        if name not in there:
            raise InputError("cameras", "names of photographs", name)
        if camera.size is not None and camera.size != there[name]:
            raise InputError(f"camera of {name}", f"size {there[name]}", f"{camera.size}")
    files = set(photographs.names) if photographs is not None else set()
    return {
        name: PhotographCamera(known[name], size, is_known=True, has_focal=True)
        if name in known
        else _guessed(photographs.path(name) if photographs and name in files else None, size)
        for name, size in there.items()
    }


def _guessed(path: Path | None, size: ImageSize) -> PhotographCamera:
    focal = _focal_from_exif(path, size) if path is not None and path.is_file() else None
    guess = _GUESSED_FOCAL * max(size.width, size.height)
    camera = Camera("SIMPLE_RADIAL", (focal or guess, *image_center(size), 0.0), size)
    return PhotographCamera(camera, size, is_known=False, has_focal=focal is not None)


def _focal_from_exif(path: Path, size: ImageSize) -> float | None:
    pycolmap = import_pycolmap("reading focals from EXIF")
    try:
        with quiet(pycolmap):
            camera = pycolmap.infer_camera_from_image(str(path))
    except Exception:  # pycolmap raises whatever its checks and streams throw
        return None
    # A file that was stored turned has its sides exchanged; its focal is the same.
    if sorted((camera.width, camera.height)) != sorted((size.width, size.height)):
        return None
    return float(camera.mean_focal_length()) if camera.has_prior_focal_length else None
