"""A point cloud and its cameras as glTF 2.0 binary (.glb), for viewers, Blender and browsers.

glTF's axes are x right, y up, z towards the viewer, and its cameras look along -z. The root node
turns the world so that up, as the photographs tell, is y; below it everything keeps the
reconstruction's own frame and unit. Each photograph is a node of its name with a wire frame, and a
glTF camera below it. Colours are linear, as the specification wants them.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from matcher.files import written
from matcher.reconstruction.model import RegisteredImage
from matcher.reconstruction.point_cloud import PointCloud
from matcher.reconstruction.scene_layout import (
    FRUSTUM_EDGES,
    frustum_colors,
    frustum_corners,
    frustum_depth,
    level_from_world,
)
from matcher.structures import FloatArray

__all__ = ["write_glb"]

_FLOAT, _USHORT = 5126, 5123
_ARRAY_BUFFER = 34962
_POINTS, _LINES = 0, 1
_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def write_glb(
    path: str | os.PathLike[str],
    cloud: PointCloud,
    *,
    cameras: Sequence[RegisteredImage] = (),
    extras: Mapping[str, str] | None = None,
) -> None:
    """Write a cloud and its cameras, in one step.

    Args:
        path: a name that ends in .glb.
        cloud: the points.
        cameras: as glTF cameras with wire frames.
        extras: put into the file's ``asset``, for instance model and licence.

    Raises:
        InputError: another suffix, or a folder that does not exist or refuses the file.
    """
    scene = _Scene()
    children = []
    if len(cloud):
        children.append(scene.add_points(cloud))
    if cameras:
        depth = frustum_depth(cameras, cloud.positions)
        colors = _linear(frustum_colors(len(cameras)))
        children += [
            scene.add_camera(image, depth, color)
            for image, color in zip(cameras, colors, strict=True)
        ]
    root = np.eye(4)
    root[:3, :3] = level_from_world(cameras)
    content = scene.content(root, children, extras or {})
    text = json.dumps(content, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    chunks = [(text, b"JSON")]
    if scene.binary:
        chunks.append((bytes(scene.binary), b"BIN\0"))
    length = 12 + sum(8 + len(chunk) for chunk, _ in chunks)
    with written(path, (".glb",)) as stream:
        stream.write(struct.pack("<4sII", b"glTF", 2, length))
        for chunk, kind in chunks:
            stream.write(struct.pack("<I4s", len(chunk), kind))
            stream.write(chunk)


class _Scene:
    """The lists of a glTF file while it is put together; an index is a place in its list."""

    def __init__(self) -> None:
        self.binary = bytearray()
        self._lists: dict[str, list[dict[str, Any]]] = {
            name: []
            for name in ("nodes", "meshes", "cameras", "materials", "accessors", "bufferViews")
        }

    def add_points(self, cloud: PointCloud) -> int:
        """Index of the points' node, whose place is their middle: float32 keeps its digits."""
        middle = cloud.positions.mean(axis=0)
        colors = np.full((len(cloud), 4), 65535, dtype=np.uint16)  # four: rows of 8 bytes
        colors[:, :3] = (_linear(cloud.colors) * 65535).round()
        attributes = {
            "POSITION": self._add_array((cloud.positions - middle).astype(np.float32)),
            "COLOR_0": self._add_array(colors),
        }
        mesh = self._add_mesh("points", attributes, _POINTS, np.ones(3))
        return self._add("nodes", name="points", mesh=mesh, translation=middle.tolist())

    def add_camera(self, image: RegisteredImage, depth: float, color: FloatArray) -> int:
        """Index of a camera's node."""
        corners = frustum_corners(image, depth) @ _OPENGL_FROM_OPENCV[:3, :3]
        lines = corners[np.array(FRUSTUM_EDGES).reshape(-1)].astype(np.float32)
        mesh = self._add_mesh(image.name, {"POSITION": self._add_array(lines)}, _LINES, color)
        fx, fy = image.camera.focals
        height, width = image.size.height, image.size.width
        camera = self._add(
            "cameras",
            name=f"camera {image.name}",
            type="perspective",
            # glTF knows no principal point and no distortion.
            perspective={
                "yfov": 2 * float(np.arctan(height / (2 * fy))),
                "aspectRatio": (width / fx) / (height / fy),
                "znear": depth / 100,
            },
        )
        world_from_cam = image.cam_from_world.inverse.matrix @ _OPENGL_FROM_OPENCV
        # A node and a name of its own: some readers leave out the mesh of a node with a camera.
        eye = self._add("nodes", name=f"camera {image.name}", camera=camera)
        return self._add(
            "nodes", name=image.name, mesh=mesh, children=[eye], matrix=_columns(world_from_cam)
        )

    def content(
        self, root: FloatArray, children: Sequence[int], extras: Mapping[str, str]
    ) -> dict[str, Any]:
        """The JSON of the file."""
        node: dict[str, Any] = {"name": "reconstruction", "matrix": _columns(root)}
        if children:
            node["children"] = list(children)
        top = self._add("nodes", **node)
        asset: dict[str, Any] = {"version": "2.0", "generator": "widebase"}
        if extras:
            asset["extras"] = dict(extras)
        values: dict[str, Any] = {"asset": asset, "scene": 0, "scenes": [{"nodes": [top]}]}
        # An empty list is not allowed.
        values |= {name: entries for name, entries in self._lists.items() if entries}
        if self.binary:
            values["buffers"] = [{"byteLength": len(self.binary)}]
        if self._lists["materials"]:
            values["extensionsUsed"] = ["KHR_materials_unlit"]
        return values

    def _add(self, kind: str, **entry: Any) -> int:
        self._lists[kind].append(entry)
        return len(self._lists[kind]) - 1

    def _add_mesh(
        self, name: str, attributes: Mapping[str, int], mode: int, color: FloatArray
    ) -> int:
        material = self._add(
            "materials",
            pbrMetallicRoughness={"baseColorFactor": [*map(float, color), 1.0]},
            extensions={"KHR_materials_unlit": {}},
        )
        primitive = {"attributes": dict(attributes), "mode": mode, "material": material}
        return self._add("meshes", name=name, primitives=[primitive])

    def _add_array(self, array: npt.NDArray[np.float32] | npt.NDArray[np.uint16]) -> int:
        view = self._add(
            "bufferViews",
            buffer=0,
            byteOffset=len(self.binary),
            byteLength=array.nbytes,
            target=_ARRAY_BUFFER,
        )
        self.binary += array.tobytes()  # rows of 8 or 12 bytes: the next starts at 4 bytes
        entry: dict[str, Any] = {
            "bufferView": view,
            "count": len(array),
            "type": f"VEC{array.shape[1]}",
            "componentType": _FLOAT if array.dtype == np.float32 else _USHORT,
        }
        if array.dtype == np.float32:
            entry |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        else:
            entry["normalized"] = True
        return self._add("accessors", **entry)


def _columns(matrix: FloatArray) -> list[float]:
    """The 16 numbers of a (4, 4) matrix, column by column."""
    numbers: list[float] = matrix.T.reshape(-1).tolist()
    return numbers


def _linear(colors: npt.NDArray[np.uint8]) -> FloatArray:
    """Linear light in [0, 1] of sRGB in [0, 255] (IEC 61966-2-1)."""
    value = colors / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
