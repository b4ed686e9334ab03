"""One rendered scene and one map of it for all tests of localization."""

from __future__ import annotations

import pytest

from matcher import Matcher
from matcher.localization import ReferenceMap
from tests.localization_scene import ReliefScene, scene_matcher, write_scene


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> ReliefScene:
    return write_scene(tmp_path_factory.mktemp("relief"))


@pytest.fixture
def matcher(scene: ReliefScene) -> Matcher:
    return scene_matcher(scene)


@pytest.fixture(scope="session")
def rgbd_map(scene: ReliefScene) -> ReferenceMap:
    return ReferenceMap.from_rgbd(scene.images, scene.depths, scene.poses, scene.camera)
