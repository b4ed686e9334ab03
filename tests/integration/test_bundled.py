"""The bundled model on photographs that hold no answer: none is made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

skimage = pytest.importorskip("skimage")
PHOTOS = Path(skimage.__file__).parent / "data"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name0", "name1"),
    [("gravel.png", "brick.png"), ("coins.png", "page.png"), ("chelsea.png", "coffee.png")],
)
def test_unrelated_photographs_have_no_pose(widebase, name0, name1):
    run = widebase("pose", PHOTOS / name0, PHOTOS / name1, "--json", "--crops", "never")
    assert (run.status, run.err) == (3, "")
    assert run.json["pose"] is None
    assert run.json["reason"]


def test_the_same_photograph_twice_has_no_pose(widebase):
    photo = PHOTOS / "motorcycle_left.png"
    run = widebase("pose", photo, photo, "--json", "--crops", "never")
    assert run.status == 3
    assert "rotation alone" in run.json["reason"]


def test_a_blank_photograph_has_no_match(widebase, tmp_path):
    blank = tmp_path / "blank.png"
    Image.fromarray(np.full((300, 400, 3), 127, dtype=np.uint8)).save(blank)
    run = widebase("match", blank, PHOTOS / "coffee.png", "--json")
    assert run.status == 3
    assert (run.json["num_matches"], run.json["keypoints0"]) == (0, [])
    assert "blank" in run.json["reason"]
