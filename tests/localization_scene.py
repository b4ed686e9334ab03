"""A map of the relief: photographs with depth and poses, a query, and a network that reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from matcher import Camera, Matcher, PairOptions, Pose
from matcher.checkpoints import CheckpointInfo
from matcher.geometry.camera import project
from matcher.model.network import EncodedViews
from matcher.reconstruction.model import Reconstruction, RegisteredImage, SparsePoints
from matcher.structures import FloatArray, ImageSize, PairPrediction
from tests.relief import (
    HALF_EXTENT,
    ReliefNetwork,
    _camera,
    _photograph,
    _surface_points,
    relief_height,
    second_pose,
)

SIZE = (192, 256)
MAP_DEGREES = (-24.0, -12.0, 0.0, 12.0, 24.0)
QUERY_DEGREES = 7.0
_GRID = np.linspace(-HALF_EXTENT, HALF_EXTENT, 7)


@dataclass(frozen=True, eq=False)
class ReliefView:
    """One photograph: (H, W, 3) uint8, (H, W) depth in metres, its camera and its pose."""

    image: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    camera: Camera
    cam_from_world: Pose


@dataclass(frozen=True, eq=False)
class ReliefScene:
    """A folder with ``map.jsonl``, ``images/``, ``depth/`` and ``query.png``, and their truth."""

    folder: Path
    views: tuple[ReliefView, ...]
    query: ReliefView

    @property
    def images(self) -> list[Path]:
        return [self.folder / "images" / f"{number}.png" for number in range(len(self.views))]

    @property
    def depths(self) -> list[Path]:
        return [self.folder / "depth" / f"{number}.png" for number in range(len(self.views))]

    @property
    def poses(self) -> list[Pose]:
        return [view.cam_from_world for view in self.views]

    @property
    def camera(self) -> Camera:
        return self.views[0].camera

    @property
    def query_path(self) -> Path:
        return self.folder / "query.png"


def relief_view(pose: Pose, blue: int, size: tuple[int, int] = SIZE, seed: int = 0) -> ReliefView:
    """What a camera at ``pose`` sees; ``blue`` above 128 says that it is the query's."""
    camera = _camera(size)
    image = _photograph(camera, pose, blue, np.random.default_rng(seed))
    y, x = np.mgrid[: size[0], : size[1]]
    pixels = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    depth = pose.transform(_surface_points(pixels, camera, pose))[:, 2]
    return ReliefView(image, depth.reshape(size).astype(np.float32), camera, pose)


def surface_points(view: ReliefView, keypoints: FloatArray) -> FloatArray:
    """(M, 3) points of the relief behind pixels of a view."""
    return _surface_points(keypoints, view.camera, view.cam_from_world)


def write_scene(folder: Path) -> ReliefScene:
    """Render the map and the query into ``folder``."""
    views = tuple(
        relief_view(second_pose(degrees), 64, seed=number)
        for number, degrees in enumerate(MAP_DEGREES)
    )
    scene = ReliefScene(folder, views, relief_view(second_pose(QUERY_DEGREES), 192, seed=99))
    for part in ("images", "depth"):
        (folder / part).mkdir(parents=True)
    lines = []
    for view, image, depth in zip(views, scene.images, scene.depths, strict=True):
        Image.fromarray(view.image).save(image)
        cv2.imwrite(str(depth), np.rint(view.depth * 1000).astype(np.uint16))
        lines.append(
            {
                "image": f"images/{image.name}",
                "depth": f"depth/{depth.name}",
                "K": view.camera.matrix.tolist(),
                "cam_from_world": view.cam_from_world.matrix.tolist(),
                "depth_scale": 1000.0,
            }
        )
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "map.jsonl").write_text(text, encoding="utf-8")
    Image.fromarray(scene.query.image).save(scene.query_path)
    return scene


def sparse_reconstruction(scene: ReliefScene, count: int = 400) -> Reconstruction:
    """Points of the relief, observed by every photograph in which they lie."""
    random = np.random.default_rng(5)
    x, y = random.uniform(-2, 2, (2, count))
    positions = np.stack([x, y, relief_height(x, y)], axis=1)
    images, point, image, keypoint = [], [], [], []
    for number, (view, path) in enumerate(zip(scene.views, scene.images, strict=True)):
        images.append(
            RegisteredImage(path.name, view.camera, view.cam_from_world, ImageSize(*SIZE))
        )
        pixels = project(view.cam_from_world.transform(positions), view.camera)
        inside = np.flatnonzero(np.all((pixels > 0) & (pixels < [SIZE[1] - 1, SIZE[0] - 1]), 1))
        point.append(inside)
        image.append(np.full(len(inside), number))
        keypoint.append(pixels[inside])
    points = SparsePoints(
        positions,
        np.zeros((count, 3), np.uint8),
        np.zeros(count),
        np.concatenate(point).astype(np.int64),
        np.concatenate(image).astype(np.int64),
        np.concatenate(keypoint),
    )
    return Reconstruction(tuple(images), points)


class PlaceNetwork(ReliefNetwork):
    """The relief's network with tokens that say which parts of the relief a view shows."""

    def _encode(self, image: Tensor) -> EncodedViews:
        encoded = super()._encode(image)
        assert encoded.pixels is not None
        x, y = encoded.pixels[0][:, ::8, ::8].flatten(1).numpy()
        bumps = [
            np.exp(-2 * ((x - center_x) ** 2 + (y - center_y) ** 2))
            for center_x in _GRID
            for center_y in _GRID
        ]
        camera = np.full(len(x), float(encoded.tokens))
        tokens = torch.from_numpy(np.stack([*bumps, camera], axis=1)).float()
        return EncodedViews(tokens[None], encoded.grid, (), encoded.pixels)

    def decode(
        self, view0: EncodedViews, view1: EncodedViews, *, points: bool = True
    ) -> PairPrediction:
        frame = self.poses[int(view0.tokens[0, 0, -1])]
        return PairPrediction(
            self._output(view0, frame, points=points), self._output(view1, frame, points=points)
        )


def scene_matcher(
    scene: ReliefScene, *, is_metric: bool = False, sha256: str = "1" * 64, name: str = "relief"
) -> Matcher:
    """Matches photographs of the scene; pointmaps of pairs that begin with the query are true."""
    network = PlaceNetwork((Pose.identity(), scene.query.cam_from_world))
    info = CheckpointInfo(name, "CC0-1.0", is_metric=is_metric, sha256=sha256)
    return Matcher(network, info, PairOptions(max_size=256))  # type: ignore[arg-type]
