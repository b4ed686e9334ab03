"""An exact scene for the sparse alignment: hills seen by cameras on an arc, no rendering."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from matcher.geometry.camera import distort_keypoints, normalize, project
from matcher.geometry.pixels import resize_transform, to_original
from matcher.pair_records import PairRecord
from matcher.pointmaps import Pointmaps
from matcher.structures import Camera, FloatArray, ImageSize, Matches, Pose

MAP_SIZE = ImageSize(96, 128)
SIZE = ImageSize(384, 512)
ORIGINAL_FROM_NETWORK = resize_transform(MAP_SIZE, SIZE)
CAMERA = Camera.pinhole(520.0, 520.0, 255.5, 191.5, SIZE)


@dataclass(frozen=True)
class Hills:
    """Cameras around a hilly ground; all of them see most of each other's view."""

    poses: tuple[Pose, ...]
    camera: Camera = CAMERA
    phase: float = 0.0

    @classmethod
    def on_arc(cls, angles_deg: Sequence[float], phase: float = 0.0) -> Hills:
        """Cameras 6 units from the middle of the ground, at angles around its vertical axis."""
        poses = []
        for number, angle in enumerate(np.radians(angles_deg)):
            tilt = 0.05 * ((-1) ** number)
            forward = np.array([np.sin(angle), tilt, np.cos(angle)])
            forward /= np.linalg.norm(forward)
            right = np.cross([0.0, 1.0, 0.0], forward)
            right /= np.linalg.norm(right)
            rotation = np.stack([right, np.cross(forward, right), forward])
            poses.append(Pose(rotation, -rotation @ (-6.0 * forward)))
        return cls(tuple(poses), phase=phase)

    def height(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Depth of the ground, world axes."""
        return np.asarray(
            0.5 * np.sin(1.3 * x + self.phase) + 0.4 * np.cos(1.7 * y) + 0.2 * np.sin(x * y)
        )

    def points(self, image: int, pixels: FloatArray) -> FloatArray:
        """(M, 3) points of the ground, world frame, that a camera sees at undistorted pixels."""
        pose = self.poses[image]
        center = pose.inverse.translation
        rays = (pixels - np.array(self.camera.principal_point)) / np.array(self.camera.focals)
        directions = np.column_stack([rays, np.ones(len(rays))]) @ pose.rotation
        along = np.full(len(rays), 6.0)
        for _ in range(60):
            point = center + along[:, None] * directions
            miss = point[:, 2] - self.height(point[:, 0], point[:, 1])
            along = along - 0.5 * miss / directions[:, 2]
        return np.asarray(center + along[:, None] * directions)

    def matches(self, i: int, j: int, count: int, generator: np.random.Generator) -> FloatArray:
        """(M, 4) pixels in image i and in image j of one place each, without distortion."""
        inner = [SIZE.width - 9, SIZE.height - 9]
        # An image has the same keypoints in all its pairs, from which each pair takes some.
        keypoints = np.random.default_rng(i).uniform(4, inner, (2 * count, 2))
        pixels = keypoints[generator.permutation(2 * count)[:count]]
        pinhole = Camera.pinhole(*self.camera.focals, *self.camera.principal_point, SIZE)
        seen = project(self.poses[j].transform(self.points(i, pixels)), pinhole)
        inside = ((seen > 4) & (seen < inner)).all(axis=1)
        return np.hstack([pixels[inside], seen[inside]])

    def pointmap(self, image: int, frame: int) -> FloatArray:
        """(h, w, 3) points of an image in the frame of a camera."""
        x, y = np.meshgrid(np.arange(MAP_SIZE.width), np.arange(MAP_SIZE.height))
        grid = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
        pixels = to_original(grid, ORIGINAL_FROM_NETWORK)
        points = self.poses[frame].transform(self.points(image, pixels))
        return points.reshape(MAP_SIZE.height, MAP_SIZE.width, 3)

    def record(
        self,
        i: int,
        j: int,
        generator: np.random.Generator,
        *,
        noise_px: float = 0.0,
        wrong: float = 0.0,
        count: int = 300,
        with_pointmaps: bool = False,
        prefix: str = "",
    ) -> PairRecord:
        """One pair; ``wrong`` is the share of matches that are wrong."""
        both = self.matches(i, j, count, generator)
        both[:, 2:] += noise_px * generator.standard_normal((len(both), 2))
        bad = generator.random(len(both)) < wrong
        both[bad, 2:] = generator.uniform(0, [SIZE.width, SIZE.height], (int(bad.sum()), 2))
        keypoints = [
            torch.from_numpy(distort_keypoints(part, self.camera)).float()
            for part in (both[:, :2], both[:, 2:])
        ]
        confidence = torch.from_numpy(generator.uniform(0.5, 1.0, len(both))).float()
        maps = None
        if with_pointmaps:
            scale = generator.uniform(0.5, 2.0, 2)
            sure = np.full((MAP_SIZE.height, MAP_SIZE.width), 3.0, np.float32)
            maps = Pointmaps(
                (scale[0] * self.pointmap(i, i)).astype(np.float32),
                (scale[0] * self.pointmap(j, i)).astype(np.float32),
                sure,
                sure,
                ORIGINAL_FROM_NETWORK,
                ORIGINAL_FROM_NETWORK,
                (scale[1] * self.pointmap(j, j)).astype(np.float32),
            )
        return PairRecord(
            f"{prefix}{i}.jpg",
            f"{prefix}{j}.jpg",
            Matches(keypoints[0], keypoints[1], confidence),
            SIZE,
            SIZE,
            pointmaps=maps,
        )

    def records(
        self,
        *,
        seed: int = 0,
        noise_px: float = 0.0,
        wrong: float = 0.0,
        with_pointmaps: bool = False,
        prefix: str = "",
    ) -> list[PairRecord]:
        """All pairs."""
        generator = np.random.default_rng(seed)
        return [
            self.record(
                i,
                j,
                generator,
                noise_px=noise_px,
                wrong=wrong,
                with_pointmaps=with_pointmaps,
                prefix=prefix,
            )
            for i, j in itertools.combinations(range(len(self.poses)), 2)
        ]

    def cameras(self, prefix: str = "") -> dict[str, Camera]:
        """The camera of every photograph by name."""
        return {f"{prefix}{index}.jpg": self.camera for index in range(len(self.poses))}


def rays_agree(camera: Camera, pixels: FloatArray, points: FloatArray) -> float:
    """Largest distance of normalised pixels from normalised points in the camera's frame."""
    return float(np.abs(normalize(pixels, camera) - points[:, :2] / points[:, 2:]).max())
