"""Synthetic places with exact geometry: scenes, cameras, a ray-caster, ground truth of pairs."""

from __future__ import annotations

from matcher.synthetic.batches import PlaceOptions, RenderedPairs, render_pairs
from matcher.synthetic.cameras import CameraOptions, sample_cameras
from matcher.synthetic.fixtures import TestPair, make_test_pair
from matcher.synthetic.layouts import SceneOptions, sample_scenes
from matcher.synthetic.lens import LensOptions, photograph
from matcher.synthetic.pairs import (
    Correspondences,
    correspondences,
    overlap,
    overlap_matrix,
    points_in_camera0,
    relative_pose,
    sample_pairs,
)
from matcher.synthetic.patterns import role_textures
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
from matcher.synthetic.weather import Weather, WeatherOptions, sample_weather

__all__ = [
    "CameraOptions",
    "Cameras",
    "Correspondences",
    "LensOptions",
    "MipAtlas",
    "PlaceOptions",
    "RenderOptions",
    "RenderedPairs",
    "RenderedViews",
    "Scene",
    "SceneOptions",
    "TestPair",
    "Weather",
    "WeatherOptions",
    "build_atlas",
    "cast_depth",
    "correspondences",
    "find_images",
    "height_field",
    "load_textures",
    "make_test_pair",
    "overlap",
    "overlap_matrix",
    "photograph",
    "points_in_camera0",
    "procedural_textures",
    "relative_pose",
    "render",
    "render_pairs",
    "role_textures",
    "sample_cameras",
    "sample_pairs",
    "sample_scenes",
    "sample_weather",
]
