from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from matcher.errors import InputError
from matcher.reconstruction.glb import write_glb
from matcher.reconstruction.ply import write_ply
from matcher.reconstruction.point_cloud import PointCloud
from matcher.reconstruction.scene_layout import frustum_corners, frustum_depth, level_from_world
from tests.unit.reconstruction.rendered import plane_cameras, rendered

CLOUD = PointCloud(
    np.array([[0.0, 0.25, -1], [1e3, 2, 3], [-4, 5.5, 1e-3]]),
    np.array([[255, 0, 7], [1, 2, 3], [128, 64, 255]], np.uint8),
    np.array([1.5, 2, 30], np.float32),
)


def chunks_of(path):
    """The JSON and the binary chunk of a GLB file, whose sizes are checked."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    found, start = [], 12
    while start < length:
        size, kind = struct.unpack_from("<I4s", data, start)
        assert size % 4 == 0
        found.append((kind, data[start + 8 : start + 8 + size]))
        start += 8 + size
    assert [kind for kind, _ in found] == [b"JSON", b"BIN\0"][: len(found)]
    return json.loads(found[0][1]), found[1][1] if len(found) > 1 else b""


@pytest.mark.parametrize("text", [False, True])
def test_ply_reads_back(tmp_path, text):
    trimesh = pytest.importorskip("trimesh")
    path = tmp_path / "cloud.ply"
    write_ply(path, CLOUD, text=text, comments=["model small, licence Apache-2.0"])
    loaded = trimesh.load(path)
    np.testing.assert_allclose(loaded.vertices, CLOUD.positions, rtol=1e-6)
    np.testing.assert_array_equal(loaded.colors[:, :3], CLOUD.colors)
    header = path.read_bytes().split(b"end_header")[0].decode()
    assert "comment model small, licence Apache-2.0\n" in header
    assert ("format ascii 1.0" if text else "format binary_little_endian 1.0") in header
    assert [file.name for file in tmp_path.iterdir()] == ["cloud.ply"]


def test_the_bytes_of_a_ply(tmp_path):
    write_ply(tmp_path / "a.ply", CLOUD)
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    assert len(body) == 3 * (3 * 4 + 3 + 4)
    assert struct.unpack_from("<3f3Bf", body, 19) == (1e3, 2, 3, 1, 2, 3, 2)
    assert header.decode().splitlines()[2:] == [
        "element vertex 3",
        "property float x",
        "property float y",
        "property float z",
        "property uchar red",
        "property uchar green",
        "property uchar blue",
        "property float confidence",
    ]


def test_cameras_in_a_ply(tmp_path):
    cameras = plane_cameras(2)
    write_ply(tmp_path / "a.ply", CLOUD, cameras=cameras, text=True)
    lines = (tmp_path / "a.ply").read_text().split("end_header\n")[1].splitlines()
    assert len(lines) == 3 + 2 * 6 + 2 * 10
    center = np.array(lines[3 + 6].split()[:3], dtype=float)
    np.testing.assert_allclose(center, cameras[1].center, rtol=1e-6, atol=1e-4)
    edges = np.array([line.split() for line in lines[15:]], dtype=int)
    assert edges.min() == 3
    assert edges.max() == 14
    assert (edges[:10] < 9).all()
    # All edges of the second camera belong to it.
    assert (edges[10:] >= 9).all()


def test_an_empty_cloud_is_a_file(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    write_ply(tmp_path / "a.ply", PointCloud.empty())
    assert b"element vertex 0\n" in (tmp_path / "a.ply").read_bytes()
    write_glb(tmp_path / "a.glb", PointCloud.empty())
    content, binary = chunks_of(tmp_path / "a.glb")
    assert binary == b""
    assert "meshes" not in content
    write_glb(tmp_path / "b.glb", PointCloud.empty(), cameras=plane_cameras(1))
    assert len(trimesh.load(tmp_path / "b.glb").geometry) == 1


def test_glb_for_another_reader(tmp_path):
    """trimesh finds points and wire frames where our own arithmetic puts them, y up."""
    trimesh = pytest.importorskip("trimesh")
    cameras = plane_cameras(3)
    write_glb(tmp_path / "scene.glb", CLOUD, cameras=cameras)
    loaded = trimesh.load(tmp_path / "scene.glb")
    assert set(loaded.geometry) == {"points", "0.png", "1.png", "2.png"}
    placed = {}
    for node in loaded.graph.nodes_geometry:
        matrix, name = loaded.graph[node]
        placed[name] = trimesh.transform_points(loaded.geometry[name].vertices, matrix)
    # These cameras look along +z of the world with its -y up: level axes are (x, -y, -z).
    level = level_from_world(cameras).T
    np.testing.assert_allclose(level, np.diag([1.0, -1, -1]), atol=1e-3)
    np.testing.assert_allclose(placed["points"], CLOUD.positions @ level, atol=1e-3)
    for image in cameras:
        nearest = np.linalg.norm(placed[image.name] - image.center @ level, axis=1).min()
        assert nearest < 1e-2
        depth = frustum_depth(cameras, CLOUD.positions)
        corners = image.cam_from_world.inverse.transform(frustum_corners(image, depth)) @ level
        np.testing.assert_allclose(placed[image.name].max(0), corners.max(0), atol=1e-2)


def test_a_glb_camera_looks_where_the_photograph_did(tmp_path):
    """glTF cameras look along -z of their node; yfov and aspect are the photograph's."""
    scene = rendered((0.0, 25.0))
    write_glb(
        tmp_path / "a.glb", scene.cloud(), cameras=scene.images, extras={"licence": "Apache-2.0"}
    )
    content, _ = chunks_of(tmp_path / "a.glb")
    nodes = {node["name"]: node for node in content["nodes"]}
    root = np.array(nodes["reconstruction"]["matrix"]).reshape(4, 4).T
    for image in scene.images:
        world = np.array(nodes[image.name]["matrix"]).reshape(4, 4).T
        ahead = -(root @ world)[:3, 2]
        np.testing.assert_allclose(
            ahead, root[:3, :3] @ image.cam_from_world.rotation[2], atol=1e-12
        )
        # The rendered cameras are held level, and look down by 24 degrees: 2.6 m over 5.2 m.
        assert (root @ world)[1, 1] == pytest.approx(np.cos(np.arctan(2.6 / 5.2)), abs=0.02)
        assert (root @ world)[1, 0] == pytest.approx(0, abs=0.02)
        camera = content["cameras"][nodes[f"camera {image.name}"]["camera"]]["perspective"]
        assert camera["yfov"] == pytest.approx(2 * np.arctan(30 / image.camera.focals[1]))
        assert camera["aspectRatio"] == pytest.approx(80 / 60)
    np.testing.assert_allclose(root[1, :3], [0, 0, 1], atol=0.05)  # the ground is level
    assert content["asset"]["extras"] == {"licence": "Apache-2.0"}


def test_colours_of_a_glb_are_linear(tmp_path):
    write_glb(tmp_path / "a.glb", CLOUD)
    content, binary = chunks_of(tmp_path / "a.glb")
    accessor = next(a for a in content["accessors"] if a["componentType"] == 5123)
    view = content["bufferViews"][accessor["bufferView"]]
    assert accessor["normalized"]
    colors = np.frombuffer(binary, "<u2", 12, view["byteOffset"]).reshape(3, 4) / 65535
    assert (colors[:, 3] == 1).all()
    np.testing.assert_allclose(colors[0, :3], [1, 0, 7 / 255 / 12.92], atol=1e-5)
    assert colors[2, 0] == pytest.approx(0.2158, abs=1e-4)  # sRGB 128
    positions = next(a for a in content["accessors"] if a["componentType"] == 5126)
    assert {"min", "max"} <= set(positions)


def test_far_from_the_origin_digits_are_kept(tmp_path):
    """Metres of a map projection: float32 alone would round to half a metre."""
    far = PointCloud(CLOUD.positions / 1e3 + [4.5e6, 0, 5e6], CLOUD.colors, CLOUD.confidence)
    write_glb(tmp_path / "a.glb", far)
    content, binary = chunks_of(tmp_path / "a.glb")
    translation = next(n for n in content["nodes"] if n["name"] == "points")["translation"]
    positions = np.frombuffer(binary, "<f4", 9).reshape(3, 3) + np.array(translation)
    np.testing.assert_allclose(positions, far.positions, atol=1e-6, rtol=0)


@pytest.mark.parametrize("write", [write_ply, write_glb])
def test_paths_that_cannot_be_written(tmp_path, write, monkeypatch):
    suffix = ".ply" if write is write_ply else ".glb"
    (tmp_path / f"folder{suffix}").mkdir()
    for name in ("cloud.xyz", f"nowhere/cloud{suffix}", f"folder{suffix}"):
        with pytest.raises(InputError, match="path: expected"):
            write(tmp_path / name, CLOUD)
    path = tmp_path / f"cloud{suffix}"
    path.write_bytes(b"old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        write(path, CLOUD)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


def test_comments_are_lines_of_ascii(tmp_path):
    for comment in ("two\nlines", "é"):
        with pytest.raises(InputError, match="comments"):
            write_ply(tmp_path / "a.ply", CLOUD, comments=[comment])
    assert list(tmp_path.iterdir()) == []
