"""Miniatures of the localization sets and of DTU, in their exact layouts, with exact truth.

The place is the inside of a box: every ray of a camera in it ends on a wall, at a distance that is
known in closed form, and nothing hides anything.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.io import savemat

from benchmarks.core.samples import FloatArray
from matcher.geometry.pose import rotation_to_quaternion
from matcher.structures import ImageSize

__all__ = [
    "DTU_DEPTH_MM",
    "RoomView",
    "room_pose",
    "room_view",
    "scaled_k",
    "write_aachen",
    "write_cambridge",
    "write_dtu",
    "write_inloc",
    "write_redkitchen",
    "write_sevenscenes",
]

_HALF = np.array([3.0, 1.5, 2.5])
_TEXTURE_CELLS_PER_M = 12
_SIZE, _WIDE = ImageSize(120, 160), ImageSize(108, 192)
_TRAIN_DEG = (0.0, 12.0, 24.0)
_TEST_DEG = (6.0, 18.0)
DTU_DEPTH_MM = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class RoomView:
    """(H, W, 3) uint8 RGB, (H, W) z-depth in metres, (H, W, 3) points of the world, K, pose."""

    image: npt.NDArray[np.uint8]
    depth: FloatArray
    points: FloatArray
    k: FloatArray
    cam_from_world: FloatArray


def scaled_k(focal: float, size: ImageSize, full_width: int) -> FloatArray:
    """K with the principal point in the middle, and ``focal`` at ``full_width`` pixels."""
    f = focal * size.width / full_width
    return np.array([[f, 0, (size.width - 1) / 2], [0, f, (size.height - 1) / 2], [0, 0, 1.0]])


def room_pose(degrees: float) -> FloatArray:
    """cam_from_world (4, 4): turned about the vertical, on a small circle, a little tilted."""
    angle, tilt = np.radians(degrees), np.radians(3 + degrees / 10)
    turn = np.array(
        [
            [np.cos(angle), 0, -np.sin(angle)],
            [0, 1, 0],
            [np.sin(angle), 0, np.cos(angle)],
        ]
    )
    nod = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    pose = np.eye(4)
    pose[:3, :3] = nod @ turn
    center = np.array([np.cos(3 * angle), 0.2 * np.sin(5 * angle), -0.5 + np.sin(2 * angle)])
    pose[:3, 3] = -pose[:3, :3] @ center
    return pose


def room_view(k: FloatArray, cam_from_world: FloatArray, size: ImageSize) -> RoomView:
    """What a camera inside the box sees."""
    x, y = np.meshgrid(np.arange(size.width), np.arange(size.height))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(k).T @ cam_from_world[:3, :3]
    center = -cam_from_world[:3, :3].T @ cam_from_world[:3, 3]
    with np.errstate(divide="ignore"):
        depth = ((np.sign(rays) * _HALF - center) / rays).min(axis=-1)
    points = center + depth[..., None] * rays
    table = np.random.default_rng(5).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    cell = np.floor(points * 0.999 * _TEXTURE_CELLS_PER_M).astype(int) % 64
    image = table[cell[..., 0], cell[..., 1], cell[..., 2]]
    return RoomView(image, depth, points, k, cam_from_world)


def write_sevenscenes(root: Path, size: ImageSize = _SIZE) -> dict[str, FloatArray]:
    """One scene, three train and two test frames; returns the queries' cam_from_world."""
    truth = {}
    for sequence, angles in (("seq-01", _TRAIN_DEG), ("seq-02", _TEST_DEG)):
        folder = root / "chess" / sequence
        folder.mkdir(parents=True)
        for number, degrees in enumerate(angles):
            pose = room_pose(degrees)
            color = room_view(scaled_k(525, size, 640), pose, size)
            depth = room_view(scaled_k(585, size, 640), pose, size).depth
            millimetres = np.rint(depth * 1000).astype(np.uint16)
            millimetres[:4] = 65535
            stem = f"frame-{number:06d}"
            _write(folder / f"{stem}.color.png", color.image)
            cv2.imwrite(str(folder / f"{stem}.depth.png"), millimetres)
            lines = ["\t".join(f"{v:.9e}" for v in row) + "\t" for row in np.linalg.inv(pose)]
            (folder / f"{stem}.pose.txt").write_text("\n".join(lines) + "\n")
            if sequence == "seq-02":
                truth[f"chess/{sequence}/{stem}.color.png"] = pose
    (root / "chess" / "TrainSplit.txt").write_text("sequence1\n")
    (root / "chess" / "TestSplit.txt").write_text("sequence2\n")
    return truth


def write_cambridge(root: Path, size: ImageSize = _WIDE) -> dict[str, FloatArray]:
    """King's College with three train and two test images; the model names .jpg, as it does."""
    folder, k = root / "KingsCollege", scaled_k(1660, size, 1920)
    entries, truth = [], {}
    for split, sequence, angles in (("train", "seq1", _TRAIN_DEG), ("test", "seq2", _TEST_DEG)):
        (folder / sequence).mkdir(parents=True)
        lines = ["Visual Landmark Dataset V1", "ImageFile, Camera Position [X Y Z W P Q R]", ""]
        for number, degrees in enumerate(angles, 1):
            pose, name = room_pose(degrees), f"{sequence}/frame{number:05d}.png"
            view = room_view(k, pose, size)
            _write(folder / name, view.image)
            numbers = [*-pose[:3, :3].T @ pose[:3, 3], *rotation_to_quaternion(pose[:3, :3])]
            lines.append(" ".join([name, *(f"{value:.9f}" for value in numbers)]))
            entries.append((name, numbers, view))
            if split == "test":
                truth[f"KingsCollege/{name}"] = pose
        (folder / f"dataset_{split}.txt").write_text("\n".join(lines) + "\n")
    model = ["NVM_V3 ", "", str(len(entries))]
    for name, numbers, view in entries:
        center, quaternion = numbers[:3], numbers[3:]
        values = [view.k[0, 0], *quaternion, *center, 0, 0]
        model.append(name.replace("png", "jpg") + "\t" + " ".join(f"{v:.9g}" for v in values) + " ")
    points = _points(entries[0][2], entries[2][2])
    model += ["", str(len(points))]
    middle = np.array([(size.width - 1) / 2, (size.height - 1) / 2])
    for point in points:
        seen = [
            f"{index} {7 * index} {offset[0]:.6f} {offset[1]:.6f}"
            for index, (_, _, view) in enumerate(entries)
            if (pixel := _project(view, point)) is not None
            for offset in [pixel - middle]
        ]
        place = " ".join(f"{value:.9f}" for value in point)
        model.append(f"{place} 10 20 30 {len(seen)} {' '.join(seen)} ")
    (folder / "reconstruction.nvm").write_text("\n".join([*model, "", "0", "", "#end", ""]))
    return truth


def write_aachen(root: Path, size: ImageSize = _SIZE) -> dict[str, FloatArray]:
    """Three map images in a COLMAP model, a day and a night query, and a retrieval list."""
    k, queries = (
        scaled_k(140, size, 160),
        ("query/day/milestone/a.jpg", "query/night/nexus5x/b.jpg"),
    )
    names = [f"db/{number}.jpg" for number in (1, 2, 3)]
    views = {}
    for name, degrees in zip((*names, *queries), (*_TRAIN_DEG, *_TEST_DEG), strict=True):
        views[name] = room_view(k, room_pose(degrees), size)
        path = root / "images_upright" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, views[name].image)
    _write_colmap(root / "3D-models" / "aachen_v_1_1", [(name, views[name]) for name in names])
    (root / "queries").mkdir()
    for time, query in zip(("day", "night"), queries, strict=True):
        # COLMAP counts pixels from the corner of the image.
        numbers = [k[0, 0], k[0, 2] + 0.5, k[1, 2] + 0.5, 0.0]
        words = [query, "SIMPLE_RADIAL", str(size.width), str(size.height), *map(repr, numbers)]
        text = " ".join(word.removeprefix("np.float64(").removesuffix(")") for word in words) + "\n"
        (root / "queries" / f"{time}_time_queries_with_intrinsics.txt").write_text(text)
    pairs = "".join(f"{query} {name}\n" for query in queries for name in names)
    (root / "pairs-query-netvlad50.txt").write_text(pairs)
    return {query: views[query].cam_from_world for query in queries}


def write_inloc(root: Path, size: ImageSize = _SIZE) -> dict[str, FloatArray]:
    """Two cutouts of a scan that is turned against the world, two queries, a retrieval list."""
    turn = np.array([[0.0, -1, 0, 4], [1, 0, 0, -2], [0, 0, 1, 0.5], [0, 0, 0, 1]])
    folder = root / "database" / "cutouts" / "DUC1" / "024"
    folder.mkdir(parents=True)
    cutouts = []
    for degrees in (0.0, 20.0):
        view = room_view(scaled_k(150, size, 160), room_pose(degrees), size)
        in_scan = (view.points - turn[:3, 3]) @ turn[:3, :3]
        in_scan[:5] = np.nan
        name = f"DUC_cutout_024_{degrees:.0f}_0.jpg"
        _write(folder / name, view.image)
        savemat(folder / f"{name}.mat", {"XYZcut": in_scan, "RGBcut": view.image})
        cutouts.append(f"database/cutouts/DUC1/024/{name}")
    transforms = root / "database" / "alignments" / "DUC1" / "transformations"
    transforms.mkdir(parents=True)
    blocks = [
        "\n".join(" ".join(f"{value:.9f}" for value in row) for row in matrix)
        for matrix in (np.eye(4), turn)
    ]
    text = f"Before general ICP:\n{blocks[0]}\n\nAfter general ICP:\n{blocks[1]}\n"
    (transforms / "DUC_trans_024.txt").write_text(text)
    (root / "query" / "iphone7").mkdir(parents=True)
    truth, pairs = {}, []
    for number, degrees in enumerate(_TEST_DEG):
        name = f"query/iphone7/IMG_07{number:02d}.JPG"
        k = scaled_k(28 / 36, size, 1)
        truth[name] = room_pose(degrees)
        _write(root / name, room_view(k, truth[name], size).image)
        pairs += [f"{name} {cutout}\n" for cutout in cutouts]
    (root / "pairs-query-netvlad40-temporal.txt").write_text("".join(pairs))
    return truth


def write_redkitchen(root: Path, size: ImageSize = _SIZE) -> dict[str, FloatArray]:
    """Three map images with depth, two queries."""
    k, lists, truth = scaled_k(140, size, 160), {"map": [], "queries": [], "queries_gt": []}, {}
    for part in ("images", "depth"):
        (root / part).mkdir(parents=True)
    for number, degrees in enumerate((*_TRAIN_DEG, *_TEST_DEG)):
        view, stem = room_view(k, room_pose(degrees), size), f"frame-{number:06d}"
        _write(root / "images" / f"{stem}.jpg", view.image)
        entry = {"image": f"images/{stem}.jpg", "K": k.tolist()}
        pose = {"cam_from_world": view.cam_from_world.tolist()}
        if degrees in _TRAIN_DEG:
            millimetres = np.rint(view.depth * 1000).astype(np.uint16)
            cv2.imwrite(str(root / "depth" / f"{stem}.png"), millimetres)
            depth = {"depth": f"depth/{stem}.png", "depth_scale": 1000.0}
            lists["map"].append(entry | pose | depth)
        else:
            lists["queries"].append(entry)
            lists["queries_gt"].append({"image": entry["image"]} | pose)
            truth[entry["image"]] = view.cam_from_world
    for name, entries in lists.items():
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        (root / f"{name}.jsonl").write_text(text)
    return truth


def write_dtu(root: Path, *, calibration: bool = False, views: int = 4) -> FloatArray:
    """Scan 1: a gentle hill of 40 mm, seen from ``views`` places; returns its measured points."""
    size, k = ImageSize(120, 160), scaled_k(2892, ImageSize(120, 1600), 1600)
    k[:2, 2] = 799.5, 599.5
    folders = ("Rectified/scan1", "Points/stl", "ObsMask", "Cameras", "Calibration/cal18")
    for folder in folders:
        (root / folder).mkdir(parents=True)
    x, y = np.meshgrid(np.arange(-20, 20, 0.5), np.arange(-20, 20, 0.5))
    z = DTU_DEPTH_MM + 5 * np.cos(x / 15) * np.cos(y / 20)
    surface = np.stack([x, y, z], -1).reshape(-1, 3)
    _write_ply(root / "Points/stl/stl001_total.ply", surface)
    # Cells of 10 mm from -30 to 30 mm and 580 to 620 mm; the scanner saw all of it but x >= 15.
    mask = np.ones((7, 7, 5), dtype=np.uint8)
    mask[5:] = 0
    box = np.array([[-30.0, -30, 580], [30, 30, 620]])
    savemat(root / "ObsMask/ObsMask1_10.mat", {"ObsMask": mask, "BB": box, "Res": 10})
    # Points count on the side y < 10.
    savemat(root / "ObsMask/Plane1.mat", {"P": np.array([[0.0], [-1], [0], [10]])})
    noise = np.random.default_rng(0).integers(0, 255, (size.height, size.width, 3), dtype=np.uint8)
    for number in range(views):
        pose = np.eye(4)
        angle = np.radians(6 * number)
        pose[0, [0, 2]], pose[2, [0, 2]] = (
            (np.cos(angle), -np.sin(angle)),
            (np.sin(angle), np.cos(angle)),
        )
        target = np.array([0.0, 0, DTU_DEPTH_MM])
        pose[:3, 3] = target - pose[:3, :3] @ target
        _write(root / f"Rectified/scan1/rect_{number + 1:03d}_3_r5000.png", noise)
        if calibration:
            projection = -0.37 * k @ pose[:3]
            text = "\n".join(" ".join(f"{value:.9e}" for value in row) for row in projection)
            (root / f"Calibration/cal18/pos_{number + 1:03d}.txt").write_text(text + "\n")
        else:
            blocks = ["\n".join(" ".join(map(repr, row)) for row in m.tolist()) for m in (pose, k)]
            text = f"extrinsic\n{blocks[0]}\n\nintrinsic\n{blocks[1]}\n\n425.0 2.5\n"
            (root / f"Cameras/{number:08d}_cam.txt").write_text(text)
    return surface


def _write(path: Path, image: npt.NDArray[np.uint8]) -> None:
    assert cv2.imwrite(str(path), image[..., ::-1])


def _project(view: RoomView, point: FloatArray) -> FloatArray | None:
    in_camera = view.cam_from_world[:3, :3] @ point + view.cam_from_world[:3, 3]
    if in_camera[2] <= 0.1:
        return None
    pixel = (view.k @ in_camera)[:2] / in_camera[2]
    height, width = view.depth.shape
    inside = (pixel >= 0).all() and pixel[0] <= width - 1 and pixel[1] <= height - 1
    return pixel if inside else None


def _points(*views: RoomView) -> FloatArray:
    """Some surface points of each view."""
    random = np.random.default_rng(3)
    return np.concatenate([random.permutation(view.points.reshape(-1, 3))[:300] for view in views])


def _write_colmap(folder: Path, views: list[tuple[str, RoomView]]) -> None:
    """cameras.bin, images.bin and points3D.bin as COLMAP documents them."""
    folder.mkdir(parents=True)
    height, width = views[0][1].depth.shape
    k = views[0][1].k
    camera = struct.pack("<QiiQQ4d", 1, 1, 1, width, height, k[0, 0], k[1, 1], *(k[:2, 2] + 0.5))
    (folder / "cameras.bin").write_bytes(camera)
    points = _points(*(view for _, view in views))
    tracks: list[list[tuple[int, int]]] = [[] for _ in points]
    images = struct.pack("<Q", len(views))
    for number, (name, view) in enumerate(views, 1):
        # The first keypoint has no point; it must be left out.
        keypoints = struct.pack("<ddq", 1.0, 1.0, -1)
        count = 1
        for index, point in enumerate(points):
            pixel = _project(view, point)
            if pixel is not None:
                tracks[index].append((number, count))
                keypoints += struct.pack("<ddq", *(pixel + 0.5), index + 1)
                count += 1
        pose = [*rotation_to_quaternion(view.cam_from_world[:3, :3]), *view.cam_from_world[:3, 3]]
        images += struct.pack("<i7di", number, *pose, 1) + name.encode() + b"\0"
        images += struct.pack("<Q", count) + keypoints
    (folder / "images.bin").write_bytes(images)
    data = struct.pack("<Q", len(points))
    for index, (point, track) in enumerate(zip(points, tracks, strict=True)):
        data += struct.pack("<Q3d3Bd", index + 1, *point, 9, 9, 9, 0.5)
        data += struct.pack("<Q", len(track))
        data += b"".join(struct.pack("<ii", *element) for element in track)
    (folder / "points3D.bin").write_bytes(data)


def _write_ply(path: Path, points: FloatArray) -> None:
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\nend_header\n"
    )
    path.write_bytes(header.encode() + points.astype("<f4").tobytes())
