"""Synthetic places with exact geometry: scenes, cameras, a ray-caster, ground truth of pairs."""

from __future__ import annotations

from matcher.synthetic.cameras import CameraOptions, sample_cameras
from matcher.synthetic.fixtures import TestPair, make_test_pair
from matcher.synthetic.layouts import SceneOptions, sample_scenes
from matcher.synthetic.pairs import (
    Correspondences,
    correspondences,
    overlap,
    overlap_matrix,
    points_in_camera0,
    relative_pose,
    sample_pairs,
)
from matcher.synthetic.relief import height_field
from matcher.synthetic.render import RenderedViews, RenderOptions, cast_depth, render
from matcher.synthetic.scene import Cameras, Scene
from matcher.synthetic.textures import (
    MipAtlas,
    build_atlas,
    find_images,
    load_textures,
    procedural_textures,
)

__all__ = [
    "CameraOptions",
    "Cameras",
    "Correspondences",
    "MipAtlas",
    "RenderOptions",
    "RenderedViews",
    "Scene",
    "SceneOptions",
    "TestPair",
    "build_atlas",
    "cast_depth",
    "correspondences",
    "find_images",
    "height_field",
    "load_textures",
    "make_test_pair",
    "overlap",
    "overlap_matrix",
    "points_in_camera0",
    "procedural_textures",
    "relative_pose",
    "render",
    "sample_cameras",
    "sample_pairs",
    "sample_scenes",
]
