"""The demo on the real pair: the bundled model must be right, any model must run."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from matcher import PairOptions

pytest.importorskip("skimage")


@pytest.fixture
def small_view(monkeypatch):
    """A short demo: where the answer does not matter, neither does resolution."""
    options = PairOptions(max_size=128, crops="never")
    monkeypatch.setattr("matcher.cli.pair_verbs.PairOptions", lambda: options)


@pytest.mark.usefixtures("small_view")
def test_an_untrained_model_leaves_its_files_too(widebase, tiny_checkpoint, tmp_path):
    folder = tmp_path / "new" / "demo"
    run = widebase("demo", "--out", folder, "--model", tiny_checkpoint, "--json")
    assert run.status in (0, 3)
    assert run.err == ""
    values = run.json
    assert (run.status == 3) == ("reason" in values)
    assert ("rotation_error_deg" in values) == ("rotation" in values)
    assert 0 <= values["share_within_3px"] <= 1
    assert values["num_matches_with_truth"] <= values["num_matches"]
    assert values["picture"] == str(folder / "motorcycle.jpg")
    with np.load(values["matches"]) as saved:
        assert len(saved["keypoints0"]) == values["num_matches"]
        assert saved["size0"].tolist() == [500, 741]
    assert sorted(path.name for path in folder.iterdir()) == ["motorcycle.jpg", "motorcycle.npz"]


@pytest.mark.slow
def test_the_bundled_model_keeps_the_promise(widebase, tmp_path):
    """Rotation within 1 degree, direction within 5, 70 % of the matches within 3 px."""
    run = widebase("demo", "--out", tmp_path, "--json")
    assert (run.status, run.err) == (0, "")
    values = run.json
    assert values["rotation_error_deg"] < 1
    assert values["translation_error_deg"] < 5
    assert values["share_within_3px"] >= 0.7
    assert values["num_matches_with_truth"] > 500
    assert values["num_inliers"] > 300
    assert (values["model"], values["licence"]) == ("small", "Apache-2.0")
    with Image.open(values["picture"]) as picture:
        assert picture.size[0] > 1200


@pytest.mark.slow
def test_the_demo_speaks_to_a_person(widebase, tmp_path):
    run = widebase("demo", "--out", tmp_path)
    assert run.status == 0
    assert "rotation error" in run.out
    assert "lie within 3 px of the measured disparity" in run.out
    assert f"wrote {tmp_path / 'motorcycle.jpg'}" in run.out
