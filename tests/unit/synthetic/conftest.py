"""Small scenes shared by the tests of ``matcher.synthetic``."""

from __future__ import annotations

import pytest
import torch

from matcher.synthetic import MipAtlas, build_atlas, procedural_textures


@pytest.fixture(scope="session")
def atlas() -> MipAtlas:
    return build_atlas(procedural_textures(torch.Generator().manual_seed(7), 10, 64))
