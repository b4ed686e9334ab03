"""A relief whose colours say where on it they are, and a network that reads them exactly.

Red and green of a photograph of the relief are coordinates of the surface point, blue says which
camera took it. :class:`ReliefNetwork` stands in for a trained network: it has the same methods, and
its descriptors and points follow from the pixels it is given and from nothing else. So a test goes
through reading, resizing, padding, cropping, matching and mapping back, and the truth is known to a
fraction of a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from heads import DenseOutput
from matcher import Camera, ImageSize, Matcher, PairOptions, Pose
from matcher.checkpoints import CheckpointInfo
from matcher.geometry.camera import normalize, project
from matcher.model import ModelConfig
from matcher.model.network import EncodedViews
from matcher.structures import FloatArray, PairPrediction

HALF_EXTENT = 3.0
"""The code covers X and Y from minus this to this, metres."""
_DISTANCE = 4.0
_BLUE = (64, 192)
_ITERATIONS = 14


def relief_height(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> FloatArray:
    height: FloatArray = _DISTANCE + 0.35 * np.sin(1.3 * x + 0.4) * np.cos(1.1 * y)
    return height


def second_pose(degrees: float) -> Pose:
    """Camera 1 on a circle about the middle of the relief, a little above camera 0."""
    angle = np.radians(degrees)
    sine, cosine = np.sin(angle), np.cos(angle)
    rotation = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    centre = np.array([_DISTANCE * sine, -0.25, _DISTANCE * (1 - cosine)])
    return Pose(rotation, -rotation @ centre)


@dataclass(frozen=True, eq=False)
class ReliefPair:
    """Two photographs of the relief and their truth."""

    image0: npt.NDArray[np.uint8]
    image1: npt.NDArray[np.uint8]
    camera0: Camera
    camera1: Camera
    cam1_from_cam0: Pose

    def true_keypoints1(self, keypoints0: npt.ArrayLike) -> FloatArray:
        """Where pixels of image 0 are in image 1."""
        points = _surface_points(
            np.asarray(keypoints0, dtype=np.float64), self.camera0, Pose.identity()
        )
        return project(self.cam1_from_cam0.transform(points), self.camera1)


def relief_pair(
    size0: tuple[int, int] = (240, 320),
    size1: tuple[int, int] = (240, 320),
    degrees: float = 15.0,
    seed: int = 0,
) -> ReliefPair:
    """Photographs of ``size0`` and ``size1`` (height, width)."""
    pose = second_pose(degrees)
    cameras = [_camera(size) for size in (size0, size1)]
    images = [
        _photograph(camera, camera_pose, blue, np.random.default_rng(seed + blue))
        for camera, camera_pose, blue in zip(cameras, (Pose.identity(), pose), _BLUE, strict=True)
    ]
    return ReliefPair(images[0], images[1], cameras[0], cameras[1], pose)


def _camera(size: tuple[int, int]) -> Camera:
    height, width = size
    focal = 1.1 * max(size)
    return Camera.pinhole(focal, focal, (width - 1) / 2, (height - 1) / 2, ImageSize(height, width))


def _surface_points(keypoints: FloatArray, camera: Camera, cam_from_world: Pose) -> FloatArray:
    on_plane = normalize(keypoints, camera)
    rays = np.column_stack([on_plane, np.ones(len(on_plane))]) @ cam_from_world.rotation
    centre = cam_from_world.inverse.translation
    depth = np.full(len(rays), _DISTANCE)
    for _ in range(_ITERATIONS):
        x, y = (centre + depth[:, None] * rays)[:, :2].T
        depth = (relief_height(x, y) - centre[2]) / rays[:, 2]
    points: FloatArray = centre + depth[:, None] * rays
    return points


def _photograph(
    camera: Camera, cam_from_world: Pose, blue: int, random: np.random.Generator
) -> npt.NDArray[np.uint8]:
    assert camera.size is not None
    height, width = camera.size.height, camera.size.width
    y, x = np.mgrid[:height, :width]
    keypoints = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    points = _surface_points(keypoints, camera, cam_from_world)
    code = (points[:, :2] + HALF_EXTENT) / (2 * HALF_EXTENT) * 255
    # Dither: without it 8 bits would make steps, whose first pixel would win every tie.
    code = np.rint(code + random.uniform(-0.5, 0.5, code.shape)).clip(0, 255)
    image = np.full((height * width, 3), blue, dtype=np.uint8)
    image[:, :2] = code
    return image.reshape(height, width, 3)


class ReliefNetwork(nn.Module):
    """Has what ``Matcher`` needs of ``TwoViewNetwork``; counts its encodings."""

    def __init__(self, poses: tuple[Pose, Pose], descriptors: bool = True) -> None:
        super().__init__()
        self.config = ModelConfig.tiny()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.poses = poses
        self.has_descriptors = descriptors
        self.num_encoded = 0

    def encode_each(self, images: Sequence[Tensor]) -> list[EncodedViews]:
        self.num_encoded += len(images)
        return [self._encode(image) for image in images]

    def _encode(self, image: Tensor) -> EncodedViews:
        """Surface coordinates (1, 2, H, W) instead of pixels, and whose camera it is as a token."""
        rgb = (image.double() + 1) / 2
        padded = functional.pad(rgb[None, :2], (2, 2, 2, 2), mode="replicate")
        smooth = functional.avg_pool2d(padded, 5, stride=1)[0]
        blue = float(rgb[2].median()) * 255
        position = (smooth * 2 - 1) * HALF_EXTENT
        camera = torch.full((1, 1, 1), int(blue > 128))
        return EncodedViews(camera, tuple(image.shape[1:]), (), position[None])

    def decode(
        self, view0: EncodedViews, view1: EncodedViews, *, points: bool = True
    ) -> PairPrediction:
        frame = self.poses[int(view0.tokens)]
        return PairPrediction(
            self._output(view0, frame, points=points), self._output(view1, frame, points=points)
        )

    def decode_each(
        self,
        views0: Sequence[EncodedViews],
        views1: Sequence[EncodedViews],
        *,
        points: bool = True,
    ) -> list[PairPrediction]:
        return [
            self.decode(one, two, points=points) for one, two in zip(views0, views1, strict=True)
        ]

    def _output(self, view: EncodedViews, frame: Pose, *, points: bool) -> DenseOutput:
        assert view.pixels is not None
        position = view.pixels[0]
        x, y = position.numpy()
        sure = torch.from_numpy(1.5 + 0.2 * np.cos(1.7 * x + 0.9 * y))[None].float()
        if not self.has_descriptors:
            points = True
        seen = frame.transform(np.stack([x, y, relief_height(x, y)], axis=-1))
        return DenseOutput(
            torch.from_numpy(seen)[None].float() if points else None,
            1 + sure if points else None,
            _embedding(position)[None] if self.has_descriptors else None,
            sure if self.has_descriptors else None,
        )


def _embedding(position: Tensor) -> Tensor:
    """(H, W, 8) unit descriptors; zero, which never matches, where the code has run out."""
    share = position / (2 * HALF_EXTENT)
    angles = torch.stack([share * np.pi, share * 4 * np.pi])
    waves = torch.cat([angles.cos(), angles.sin()]).flatten(0, 1) / 2
    known = (share.abs() < 0.49).all(dim=0)
    return (waves * known).movedim(0, -1).float()


def relief_matcher(pair: ReliefPair, options: PairOptions | None = None, **kwargs: bool) -> Matcher:
    """A matcher that knows the relief; ``is_metric`` says that its points are in metres."""
    is_metric = kwargs.pop("is_metric", False)
    network = ReliefNetwork((Pose.identity(), pair.cam1_from_cam0), **kwargs)
    info = CheckpointInfo("relief", "CC0-1.0", is_metric=is_metric, sha256="0" * 64)
    return Matcher(network, info, options)  # type: ignore[arg-type]
