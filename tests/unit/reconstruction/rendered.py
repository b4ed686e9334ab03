"""Reconstructions whose every point is exact: rendered things, and a measured plane."""

from __future__ import annotations

import numpy as np

from matcher.geometry.camera import unproject
from matcher.reconstruction import DensePoints, Reconstruction, RegisteredImage
from matcher.structures import Camera, ImageSize, Pose
from tests.benchmarks.miniature import render_views

# Pixels of a pointmap half as large as its photograph: centres (0, 0), (1, 1) lie at 0.5, 2.5.
ORIGINAL_FROM_NETWORK = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])


def rendered(angles=(0.0, 12.0, 25.0), confidence=2.0, **changes):
    """Pointmaps at the size of the photographs, 60 x 80; the sky has confidence 0."""
    images = []
    for index, view in enumerate(render_views(0, angles, 60, 80)):
        size = ImageSize(60, 80)
        camera, pose = Camera.from_matrix(view.k, size), Pose.from_matrix(view.cam_from_world)
        rows, columns = np.mgrid[:60, :80]
        pixels = np.stack([columns.ravel(), rows.ravel()], 1)
        in_camera = unproject(pixels, view.depth.ravel().astype(float), camera)
        points = pose.inverse.transform(in_camera).reshape(60, 80, 3).astype(np.float32)
        sure = np.where(view.depth > 0, confidence, 0.0).astype(np.float32)
        dense = DensePoints(points, sure, view.image, np.eye(3))
        images.append(RegisteredImage(f"{index}.jpg", camera, pose, size, dense))
    return Reconstruction(tuple(images), **changes)


def plane_cameras(count=4, distance=600.0):
    """Photographs of 120 x 160 px that look at the origin of the plane z = 0 from above."""
    images = []
    for index in range(count):
        angle = 2 * np.pi * index / count + 0.2
        center = np.array([150 * np.cos(angle), 150 * np.sin(angle), -distance])
        forward = -center / np.linalg.norm(center)
        right = np.cross([0.0, 1.0, 0.0], forward)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        pose = Pose(rotation, -rotation @ center)
        size = ImageSize(120, 160)
        camera = Camera.pinhole(300.0, 300.0, 79.5, 59.5, size)
        images.append(RegisteredImage(f"{index}.png", camera, pose, size))
    return tuple(images)


def plane_points(image, pixels):
    """(M, 3) where the rays of pixels meet z = 0."""
    rays = unproject(pixels, np.ones(len(pixels)), image.camera) @ image.cam_from_world.rotation
    return image.center - rays * (image.center[2] / rays[:, 2])[:, None]


def plane_reconstruction(count=4, noise=0.0, seed=0):
    """Pointmaps of half the photographs' size; depths are off by ``noise`` of themselves."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:60, :80]
    network = np.stack([columns.ravel(), rows.ravel()], 1)
    pixels = network * 2.0 + 0.5
    images = []
    for image in plane_cameras(count):
        points = plane_points(image, pixels)
        scale = 1 + noise * generator.standard_normal((len(points), 1))
        points = image.center + (points - image.center) * scale
        dense = DensePoints(
            points.reshape(60, 80, 3).astype(np.float32),
            np.full((60, 80), 2.0, np.float32),
            np.full((60, 80, 3), 40 + 50 * len(images), np.uint8),
            ORIGINAL_FROM_NETWORK,
        )
        images.append(
            RegisteredImage(image.name, image.camera, image.cam_from_world, image.size, dense)
        )
    return Reconstruction(tuple(images))
