"""What a photograph's file tells about its lens."""

from __future__ import annotations

import math
import os

from PIL import Image

from matcher.images.reading import ImageSource

__all__ = ["exif_focal"]

_EXIF_IFD = 0x8769
_FOCAL_LENGTH_MM, _FOCAL_LENGTH_35MM = 0x920A, 0xA405
_WIDTH, _HEIGHT = 0xA002, 0xA003
_PLANE_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_DIAGONAL_35MM = math.hypot(36, 24)
# A picture whose sides have another ratio than those in its tags has been cropped since.
_RATIO_TOLERANCE = 0.02
_PLAUSIBLE = (0.2, 20.0)
"""Of focals, in long sides of the photograph: fisheyes are no pinholes, the rest is no lens."""


def exif_focal(source: ImageSource) -> float | None:
    """The focal length that the EXIF tags of a photograph tell, in its own pixels.

    Taken from the equivalent for 35 mm film, which refers to the picture's diagonal and is rounded
    to a millimetre: good to a few per cent. Without it, from the length in millimetres and the
    resolution of the sensor.

    Args:
        source: a path or a PIL image; arrays and tensors have no tags.

    Returns:
        Focal length, pixels; ``None`` where nothing is told, the tags make no sense, or the picture
        was cropped after it was taken. A file that cannot be read tells nothing either.
    """
    try:
        if isinstance(source, Image.Image):
            return _focal(source)
        if isinstance(source, str | os.PathLike):
            with Image.open(source) as picture:
                return _focal(picture)
    except Exception:  # parsers of broken tags fail with whatever they meet
        return None
    return None


def _focal(picture: Image.Image) -> float | None:
    tags = picture.getexif().get_ifd(_EXIF_IFD)
    width, height = picture.size
    told = _positive(tags.get(_WIDTH)), _positive(tags.get(_HEIGHT))
    scale = 1.0
    if told[0] is not None and told[1] is not None:
        # Programs that turn or shrink a picture often leave these as the camera wrote them.
        ratio = max(told[0], told[1]) / min(told[0], told[1])
        if abs(ratio / (max(width, height) / min(width, height)) - 1) > _RATIO_TOLERANCE:
            return None
        scale = max(width, height) / max(told[0], told[1])
    equivalent = _positive(tags.get(_FOCAL_LENGTH_35MM))
    if equivalent is not None:
        focal = equivalent / _DIAGONAL_35MM * math.hypot(width, height)
    else:
        millimetres = _positive(tags.get(_FOCAL_LENGTH_MM))
        resolution = _positive(tags.get(_PLANE_RESOLUTION))
        unit = _UNIT_MM.get(int(tags.get(_PLANE_UNIT, 2)))
        if millimetres is None or resolution is None or unit is None:
            return None
        focal = scale * millimetres * resolution / unit
    low, high = _PLAUSIBLE
    return focal if low <= focal / max(width, height) <= high else None


def _positive(value: object) -> float | None:
    if value is None:
        return None
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) and number > 0 else None
