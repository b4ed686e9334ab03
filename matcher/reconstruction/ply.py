"""Point clouds as PLY files, with the cameras as wire frames where wanted.

Positions are written as they are: in the world frame of the reconstruction, in its unit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.files import written
from matcher.reconstruction.model import RegisteredImage
from matcher.reconstruction.point_cloud import PointCloud
from matcher.reconstruction.scene_layout import (
    FRUSTUM_EDGES,
    frustum_colors,
    frustum_corners,
    frustum_depth,
)

__all__ = ["write_ply"]

_VERTEX = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
        ("confidence", "<f4"),
    ]
)
# Without colours of their own: readers such as trimesh know two numbers an edge.
_EDGE = np.dtype([("vertex1", "<i4"), ("vertex2", "<i4")])
_TYPE_NAMES = {"<f4": "float", "<i4": "int", "|u1": "uchar"}


def write_ply(
    path: str | os.PathLike[str],
    cloud: PointCloud,
    *,
    cameras: Sequence[RegisteredImage] = (),
    text: bool = False,
    comments: Sequence[str] = (),
) -> None:
    """Write a cloud, in one step.

    The vertices have position, colour and confidence. A camera adds six vertices of confidence 0
    (its centre, the corners of its picture, a tip that shows up) and the edges between them.

    Args:
        path: a name that ends in .ply.
        cloud: the points.
        cameras: drawn as wire frames.
        text: numbers as text instead of binary little endian.
        comments: lines for the header, for instance which weights made it.

    Raises:
        InputError: another suffix, a folder that does not exist or refuses the file, a comment of
            several lines or not in ASCII.
    """
    vertices, edges = _records(cloud, cameras)
    with written(path, (".ply",)) as stream:
        stream.write(_header(vertices, edges, text, comments))
        for records in (vertices, edges):
            if text:
                stream.writelines(
                    (" ".join(f"{value:.9g}" for value in row) + "\n").encode()
                    for row in records.tolist()
                )
            else:
                stream.write(records.tobytes())


def _records(
    cloud: PointCloud, cameras: Sequence[RegisteredImage]
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """Vertices and edges."""
    corners_each = 6
    vertices = np.zeros(len(cloud) + corners_each * len(cameras), _VERTEX)
    edges = np.zeros(len(FRUSTUM_EDGES) * len(cameras), _EDGE)
    depth = frustum_depth(cameras, cloud.positions) if cameras else 0.0
    corners = [
        image.cam_from_world.inverse.transform(frustum_corners(image, depth)) for image in cameras
    ]
    colors = frustum_colors(len(cameras))
    _fill(vertices, ("x", "y", "z"), np.concatenate([cloud.positions, *corners]))
    _fill(
        vertices,
        ("red", "green", "blue"),
        np.concatenate([cloud.colors, np.repeat(colors, corners_each, axis=0)]),
    )
    vertices["confidence"][: len(cloud)] = cloud.confidence
    first = len(cloud) + corners_each * np.arange(len(cameras))
    ends = (first[:, None, None] + np.array(FRUSTUM_EDGES)).reshape(-1, 2)
    _fill(edges, ("vertex1", "vertex2"), ends)
    return vertices, edges


def _fill(
    records: npt.NDArray[np.void], names: Sequence[str], columns: npt.NDArray[np.generic]
) -> None:
    for name, column in zip(names, columns.T, strict=True):
        records[name] = column


def _header(
    vertices: npt.NDArray[np.void],
    edges: npt.NDArray[np.void],
    text: bool,
    comments: Sequence[str],
) -> bytes:
    lines = ["ply", f"format {'ascii' if text else 'binary_little_endian'} 1.0"]
    for comment in comments:
        if not comment.isascii() or not comment.isprintable():
            raise InputError("comments", "one line of ASCII each", repr(comment))
        lines.append(f"comment {comment}")
    for name, records in (("vertex", vertices), ("edge", edges)):
        if name == "edge" and not len(records):
            continue
        lines.append(f"element {name} {len(records)}")
        assert records.dtype.fields is not None
        lines += [
            f"property {_TYPE_NAMES[kind.str]} {field}"
            for field, (kind, *_) in records.dtype.fields.items()
        ]
    return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii")
