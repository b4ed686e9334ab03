"""Fused clouds, and the accuracy and completeness that the DTU metrics find in them."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from benchmarks.metrics.surface import ObservedVolume, SurfaceOptions, score_surface
from matcher.errors import InputError
from matcher.geometry.camera import project
from matcher.pair_records import PairRecord
from matcher.photographs import Photographs
from matcher.reconstruction import Reconstruction
from matcher.reconstruction.fusion import FusionOptions, fuse_pointmaps
from matcher.reconstruction.match_fusion import MatchFusionOptions, fuse_matches
from matcher.structures import Matches
from tests.unit.reconstruction.rendered import (
    plane_cameras,
    plane_points,
    plane_reconstruction,
    rendered,
)

# 140 x 100 x 180 mm around the middle of the measured sheet.
OBSERVED = ObservedVolume(np.ones((7, 5, 9), dtype=bool), np.array([-60, -40, -80.0]), 20.0)
SHEET = np.stack(np.meshgrid(np.arange(-80, 80, 2.0), np.arange(-60, 60, 2.0)), -1).reshape(-1, 2)
SHEET = np.concatenate([SHEET, np.zeros((len(SHEET), 1))], 1)


def score(cloud):
    """In millimetres, the unit of the plane's scene; its pixels are 4 mm apart."""
    options = SurfaceOptions(spacing=1.0, max_distance=20.0)
    return score_surface(cloud.positions, SHEET, OBSERVED, (0, 0, 0, 1.0), options)


def plane_matches(images, noise_px=0.0, step=5, wrong=0.0, seed=0):
    """Every pair's matches of a lattice of image 0's pixels, of which a share goes anywhere."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[2:118:step, 2:158:step]
    pixels = np.stack([columns.ravel(), rows.ravel()], 1).astype(float)
    records = []
    for first, image0 in enumerate(images):
        for image1 in images[first + 1 :]:
            points = plane_points(image0, pixels)
            there = project(image1.cam_from_world.transform(points), image1.camera)
            there += noise_px * generator.standard_normal(there.shape)
            lost = generator.random(len(there)) < wrong
            there[lost] = generator.uniform((0, 0), (159, 119), (lost.sum(), 2))
            inside = ((there >= 0) & (there <= (159, 119))).all(axis=1)
            matches = Matches(
                torch.from_numpy(pixels[inside]).float(),
                torch.from_numpy(there[inside]).float(),
                torch.ones(int(inside.sum())),
            )
            records.append(PairRecord(image0.name, image1.name, matches, image0.size, image1.size))
    return records


# Pointmaps


def test_exact_pointmaps_fuse_to_the_surface():
    cloud = fuse_pointmaps(plane_reconstruction())
    assert np.abs(cloud.positions[:, 2]).max() < 1e-3
    result = score(cloud)
    assert result.accuracy < 0.8  # the measured points are 2 mm apart: 0.77 mm from any place
    assert result.completeness < 2.0  # the pixels of the pointmaps 4 mm
    assert result.precision == (pytest.approx(0.78, abs=0.1), 1)
    assert set(cloud.confidence) <= {3, 4}
    # What four photographs see is covered once, not four times.
    inner = (np.abs(cloud.positions[:, :2]) < 50).all(axis=1).sum()
    alone = plane_reconstruction().images[0].dense.points.reshape(-1, 3)
    assert inner < 1.6 * (np.abs(alone[:, :2]) < 50).all(axis=1).sum()


def test_fusing_averages_noise_and_drops_what_nobody_confirms():
    """Depths off by 0.3 % of 620 mm, 1.9 mm: the mean over four is half as wrong."""
    noisy = plane_reconstruction(noise=0.003)
    alone = np.concatenate([image.dense.points.reshape(-1, 3) for image in noisy.images])
    cloud = fuse_pointmaps(noisy, FusionOptions(min_consistent=3))
    assert len(cloud) > 1000
    assert np.std(cloud.positions[:, 2]) < 0.6 * np.std(alone[:, 2])
    # A photograph that is wrong by 5 % adds nothing.
    images = list(plane_reconstruction().images)
    points = images[0].center + 1.05 * (images[0].dense.points - images[0].center)
    dense = dataclasses.replace(images[0].dense, points=points.astype(np.float32))
    images[0] = dataclasses.replace(images[0], dense=dense)
    mixed = fuse_pointmaps(Reconstruction(tuple(images)))
    assert np.abs(mixed.positions[:, 2]).max() < 1e-3
    assert (mixed.confidence == 3).all()


def test_as_many_must_agree_as_asked():
    assert len(fuse_pointmaps(plane_reconstruction(2))) == 0
    pair = fuse_pointmaps(plane_reconstruction(2), FusionOptions(min_consistent=1))
    assert len(pair) > 1000
    assert (pair.confidence == 2).all()
    # Colours are means: 40 and 90.
    assert set(pair.colors[:, 0]) == {65}
    unsure = plane_reconstruction(4)
    assert len(fuse_pointmaps(unsure, FusionOptions(min_confidence=2.5))) == 0
    assert len(fuse_pointmaps(Reconstruction(plane_cameras()))) == 0


def test_rendered_things_fuse():
    """Every fused point lies on a rendered surface, up to the slant within one pixel."""
    scene = rendered((0.0, 8.0, 16.0))
    cloud = fuse_pointmaps(scene, FusionOptions(min_consistent=2, max_reprojection_error_px=1.0))
    assert len(cloud) > 800
    image = scene.images[1]
    in_camera = image.cam_from_world.transform(cloud.positions)
    pixels = np.rint(project(in_camera, image.camera)).astype(int)
    inside = ((pixels >= 0) & (pixels < [80, 60])).all(axis=1)
    columns, rows = pixels[inside].T
    truth = image.cam_from_world.transform(image.dense.points.astype(float))[rows, columns, 2]
    relative = np.abs(in_camera[inside, 2] / truth - 1)
    assert np.median(relative) < 0.004
    assert np.mean(relative < 0.03) > 0.97


# Matches


def test_exact_matches_fuse_to_the_surface():
    images = plane_cameras()
    cloud = fuse_matches(plane_matches(images), images)
    assert len(cloud) > 500
    assert np.abs(cloud.positions[:, 2]).max() < 0.05
    assert set(cloud.confidence) <= {3, 4}
    assert (cloud.colors == 128).all()
    # The lattice of 5 px is 10 mm wide, seen from both ends of each pair.
    result = score(cloud)
    assert result.accuracy < 0.8
    assert result.completeness < 4


def test_noise_and_wrong_matches():
    images = plane_cameras()
    exact, noisy, lost = (
        score(fuse_matches(plane_matches(images, **options), images))
        for options in ({}, {"noise_px": 0.3}, {"wrong": 0.3})
    )
    # 0.3 px * sqrt(2) / 300 / sin(14 ... 28 degrees) * 620 mm, less for a mean of three.
    assert 1.3 * exact.accuracy < noisy.accuracy < 2.5
    # Wrong matches do not meet on an epipolar line and a depth that two neighbours share.
    assert lost.precision[1] > 0.97
    assert lost.num_points > 0.3 * exact.num_points


def test_unknown_photographs_and_few_neighbours():
    images = plane_cameras(3)
    records = plane_matches(images)
    assert len(fuse_matches(records, images[:2])) == 0  # one neighbour each
    few = fuse_matches(records, images[:2], MatchFusionOptions(min_neighbours=1))
    assert len(few) > 500
    assert (few.confidence == 2).all()
    assert len(fuse_matches([], images)) == 0
    empty = dataclasses.replace(records[0], matches=Matches.empty(), reason="nothing in common")
    assert len(fuse_matches([empty], images)) == 0


def test_colours_come_from_the_photographs(tmp_path):
    images = plane_cameras(3)
    for index, image in enumerate(images):
        picture = np.full((120, 160, 3), 20 + 60 * index, np.uint8)
        cv2.imwrite(str(tmp_path / image.name), picture)
    cloud = fuse_matches(
        plane_matches(images), images, photographs=Photographs.from_folder(tmp_path)
    )
    assert set(cloud.colors[:, 1]) == {20, 80, 140}
    (tmp_path / images[0].name).unlink()
    with pytest.raises(InputError, match="0.png"):
        fuse_matches(plane_matches(images), images, photographs=Photographs.from_folder(tmp_path))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (lambda: FusionOptions(min_consistent=0), "min_consistent"),
        (lambda: FusionOptions(max_depth_difference=-0.1), "max_depth_difference"),
        (lambda: MatchFusionOptions(min_neighbours=0), "min_neighbours"),
        (lambda: MatchFusionOptions(min_angle_deg=float("nan")), "min_angle_deg"),
    ],
)
def test_options_out_of_range(options, name):
    with pytest.raises(InputError, match=name):
        options()
