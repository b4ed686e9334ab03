"""The bundled model: photographs that hold no answer, and the precision of its products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from matcher import Matcher, PairOptions
from matcher.sample_pairs import motorcycle_pair

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


def test_bfloat16_products_find_the_same_places_in_float32_results() -> None:
    sample = motorcycle_pair()
    answers = {}
    for precision in ("float32", "bfloat16"):
        options = PairOptions(max_size=256, crops="never", precision=precision)
        small = Matcher.from_pretrained("small", device="cpu", options=options)
        found = small.match(sample.image0, sample.image1)
        assert found.keypoints0.dtype == found.confidence.dtype == torch.float32
        answers[precision] = found
    exact, rounded = answers["float32"], answers["bfloat16"]
    assert min(len(exact), len(rounded)) > 50
    ends = [torch.cat([one.keypoints0, one.keypoints1], dim=1) for one in (exact, rounded)]
    assert float((torch.cdist(*ends).amin(dim=1) < 4).float().mean()) > 0.8
    assert not torch.equal(exact.confidence, rounded.confidence)
