"""Whether a binary file of a COLMAP model is whole.

COLMAP's reader does not look: from a file that was cut short it takes garbage, or never returns.
Layout (little endian): a count (u64), then so many records; strings end in a zero byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from matcher.errors import DatasetError

__all__ = ["check_whole"]

_COUNT = struct.Struct("<Q")
# Parameters of each camera model, by COLMAP's number for it.
_NUM_PARAMETERS = (3, 4, 4, 5, 8, 8, 12, 5, 4, 5, 12, 16, 4, 5, 3, 4, 6, 2)


def check_whole(path: Path) -> None:
    """Do nothing with a whole file, or with one of a name that is not known.

    Raises:
        DatasetError: the file is shorter or longer than its records.
    """
    skip = _SKIP.get(path.name)
    if skip is None:
        return
    content = path.read_bytes()
    try:
        (count,) = _COUNT.unpack_from(content)
        end = _COUNT.size
        for _ in range(count):
            end = skip(content, end)
    except (struct.error, ValueError, IndexError):
        end = -1
    if end != len(content):
        raise DatasetError(f"{path}: cannot read the COLMAP model (the file is not whole)")


def _skip_camera(content: bytes, start: int) -> int:
    # camera (u32), model (i32), width, height (u64), parameters (f64)
    (model,) = struct.unpack_from("<i", content, start + 4)
    return start + 24 + 8 * _NUM_PARAMETERS[model]


def _skip_image(content: bytes, start: int) -> int:
    # image (u32), quaternion and translation (7 f64), camera (u32), name, keypoints (2 f64, u64)
    end_of_name = content.index(b"\0", start + 64) + 1
    (keypoints,) = _COUNT.unpack_from(content, end_of_name)
    return end_of_name + _COUNT.size + 24 * int(keypoints)


def _skip_point(content: bytes, start: int) -> int:
    # point (u64), position (3 f64), colour (3 u8), error (f64), track (image u32, keypoint u32)
    (observations,) = _COUNT.unpack_from(content, start + 43)
    return start + 51 + 8 * int(observations)


def _skip_rig(content: bytes, start: int) -> int:
    # rig, number of sensors (u32); sensor (i32, u32); from the second on a flag (u8) and pose
    (sensors,) = struct.unpack_from("<I", content, start + 4)
    end = start + 8 + (8 if sensors else 0)
    for _ in range(sensors - 1):
        end += 9 + (56 if content[end + 8] else 0)
    return end


def _skip_frame(content: bytes, start: int) -> int:
    # frame, rig (u32), quaternion and translation (7 f64), data (sensor i32, u32, image u64)
    (data,) = struct.unpack_from("<I", content, start + 64)
    return start + 68 + 16 * int(data)


_SKIP: dict[str, Callable[[bytes, int], int]] = {
    "cameras.bin": _skip_camera,
    "frames.bin": _skip_frame,
    "images.bin": _skip_image,
    "points3D.bin": _skip_point,
    "rigs.bin": _skip_rig,
}
