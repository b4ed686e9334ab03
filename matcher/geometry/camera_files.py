"""Lists of cameras: a line a photograph.

Two forms, which may be mixed in one file; empty lines and lines that begin with # are skipped:

    NAME fx,fy,cx,cy                    our pixels: integer = pixel centre; k1,k2,p1,p2 may follow
    NAME MODEL WIDTH HEIGHT PARAMETERS  hloc's and COLMAP's: the first pixel's centre is (0.5, 0.5)
"""

from __future__ import annotations

import os
from pathlib import Path

from matcher.errors import InputError
from matcher.geometry.camera import parse_camera
from matcher.geometry.pixels import camera_from_colmap
from matcher.structures import Camera, ImageSize

__all__ = ["read_cameras"]


def read_cameras(path: str | os.PathLike[str], argument: str = "cameras") -> dict[str, Camera]:
    """The camera of each photograph in a list, in order.

    Args:
        path: the list.
        argument: how the user calls it, for messages.

    Raises:
        InputError: a file that cannot be read, a line of neither form (its number is named), a
            name that appears twice, no camera at all.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(argument, "a list of cameras", f"{path}: {reason}") from None
    cameras: dict[str, Camera] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in cameras:
            raise InputError(argument, "names that appear once", f"{words[0]} twice in {path}")
        cameras[words[0]] = _parsed(words[1:], f"{argument} ({path}, line {number})")
    if not cameras:
        raise InputError(argument, "a list of cameras", f"{path}: it is empty")
    return cameras


def _parsed(words: list[str], argument: str) -> Camera:
    if len(words) == 1:
        return parse_camera(words[0], argument)
    expected = "fx,fy,cx,cy, or MODEL WIDTH HEIGHT PARAMETERS"
    try:
        width, height = int(words[1]), int(words[2])
        params = tuple(float(word) for word in words[3:])
    except (IndexError, ValueError):
        raise InputError(argument, expected, repr(" ".join(words))) from None
    model = words[0]
    if model == "SIMPLE_PINHOLE" and len(params) == 3:
        model, params = "PINHOLE", (params[0], *params)
    try:
        camera = Camera(model, params, ImageSize(height, width))  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(argument, f"{error.argument}: {error.expected}", error.actual) from None
    return camera_from_colmap(camera)
