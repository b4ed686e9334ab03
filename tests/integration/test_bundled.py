"""The bundled model: photographs that hold no answer, and the precision of its products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from matcher import ImageSize, Matcher, PairOptions, PairResult
from matcher.matching import MatchingOptions, SearchBackend
from matcher.pair_inference import PairInference
from matcher.sample_pairs import motorcycle_pair
from matcher.turns import upright_matches
from matcher.view_matching import match_views

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


@pytest.fixture(scope="module")
def sideways() -> dict[int, PairResult]:
    """The sample pair with photograph 1 as it is, on either side and upside down."""
    sample = motorcycle_pair()
    small = Matcher.from_pretrained(
        "small", device="cpu", options=PairOptions(max_size=384, crops="never")
    )
    return {
        turns: small.match(sample.image0, np.ascontiguousarray(np.rot90(sample.image1, turns)))
        for turns in range(4)
    }


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_photograph_on_its_side_is_matched_as_the_upright_one(
    sideways: dict[int, PairResult], turns: int
) -> None:
    upright, turned = sideways[0], sideways[turns]
    assert upright.quarter_turns1 == 0
    assert turned.quarter_turns1 == 4 - turns
    height, width = turned.image1.shape[:2]
    assert (height, width) == (
        upright.image1.shape[:2] if turns == 2 else upright.image1.shape[1::-1]
    )
    # The turn undone gives the same photograph to the bit; the last digits of what the network
    # makes of it are the processor's business.
    torch.testing.assert_close(turned.keypoints0, upright.keypoints0, rtol=0, atol=1e-3)
    torch.testing.assert_close(turned.confidence, upright.confidence, rtol=0, atol=1e-3)
    size = ImageSize(*upright.image1.shape[:2])
    back = upright_matches(turned.matches, size, turns)
    torch.testing.assert_close(back.keypoints1, upright.keypoints1, rtol=0, atol=1e-3)
    assert turned.pointmaps is not None
    assert upright.pointmaps is not None
    np.testing.assert_allclose(
        np.rot90(turned.pointmaps.points1, -turns), upright.pointmaps.points1, rtol=1e-3, atol=1e-4
    )


def test_turns_are_tried_only_where_they_are_wanted() -> None:
    sample = motorcycle_pair()
    options = PairOptions(max_size=256, crops="never", turns="never")
    small = Matcher.from_pretrained("small", device="cpu", options=options)
    result = small.match(sample.image0, np.ascontiguousarray(sample.image1[::-1, ::-1]))
    assert result.quarter_turns1 == 0
    assert result.to_dict()["quarter_turns1"] == 0


@pytest.mark.parametrize(
    ("photo0", "photo1"), [("chelsea", "coffee"), ("motorcycle_left", "motorcycle_right")]
)
def test_turns_are_not_tried_without_need(
    monkeypatch: pytest.MonkeyPatch, photo0: str, photo1: str
) -> None:
    """Different places, and a pair that matches well upright, cost no trial."""

    def tried(*_: object) -> int:
        raise AssertionError("turns were tried")

    monkeypatch.setattr(PairInference, "_best_turn", tried)
    options = PairOptions(max_size=256, crops="never")
    small = Matcher.from_pretrained("small", device="cpu", options=options)
    result = small.match(PHOTOS / f"{photo0}.png", PHOTOS / f"{photo1}.png")
    assert result.overlap_score is not None
    assert (result.overlap_score > 0.5) == (photo0 == "motorcycle_left")


@pytest.mark.parametrize(
    ("photo0", "photo1", "backend", "searches"),
    [
        ("motorcycle_left", "motorcycle_right", "auto", ["auto"]),
        ("chelsea", "coffee", "auto", ["auto", "exact"]),
        ("chelsea", "coffee", "sampled", ["sampled"]),
    ],
)
def test_where_few_matches_are_right_the_whole_is_searched_exactly(
    monkeypatch: pytest.MonkeyPatch,
    photo0: str,
    photo1: str,
    backend: SearchBackend,
    searches: list[str],
) -> None:
    seen: list[str] = []

    def noted(view0, view1, prediction, options, calibration):
        seen.append(options.matching.backend)
        return match_views(view0, view1, prediction, options, calibration)

    monkeypatch.setattr("matcher.pair_inference.match_views", noted)
    matching = MatchingOptions(backend=backend)
    options = PairOptions(max_size=256, crops="never", turns="never", matching=matching)
    small = Matcher.from_pretrained("small", device="cpu", options=options)
    small.match(PHOTOS / f"{photo0}.png", PHOTOS / f"{photo1}.png")
    assert seen == searches


def test_crops_and_masks_follow_a_turned_photograph() -> None:
    """Upside down, in crops, with a mask that leaves its left three quarters."""
    sample = motorcycle_pair()
    options = PairOptions(max_size=384, crops="always", max_crops=2)
    small = Matcher.from_pretrained("small", device="cpu", options=options)
    turned = np.ascontiguousarray(sample.image1[::-1, ::-1])
    height, width = turned.shape[:2]
    mask = np.zeros((height, width), dtype=bool)
    mask[:, : 3 * width // 4] = True
    result = small.match(sample.image0, turned, mask1=mask)
    assert result.quarter_turns1 == 2
    assert len(result) > 50
    assert float(result.keypoints1[:, 0].max()) < 3 * width // 4 + 2
    # The sample's rows are aligned: a match keeps its height, upside down.
    rows = result.keypoints0[:, 1] + result.keypoints1[:, 1] - (height - 1)
    assert float((rows.abs() < 3).float().mean()) > 0.8


def test_many_pairs_are_turned_alike(tmp_path: Path) -> None:
    sample = motorcycle_pair()
    for name, image in (("0.png", sample.image0), ("1.png", np.rot90(sample.image1))):
        Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / name)
    options = PairOptions(max_size=384, crops="never")
    small = Matcher.from_pretrained("small", device="cpu", options=options)
    paths = tmp_path / "0.png", tmp_path / "1.png"
    one, (other,) = small.match(*paths), list(small.match_pairs([paths]))
    assert one.quarter_turns1 == other.quarter_turns1 == 3
    torch.testing.assert_close(one.keypoints1, other.keypoints1)
