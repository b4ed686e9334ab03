"""The ablations, at the size of a toy: equal compute, resumable, one table."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.ablations import runs
from benchmarks.ablations.__main__ import main
from benchmarks.ablations.scores import PointMatching
from benchmarks.ablations.variants import VARIANTS, Recipe, base_config, chosen_variants
from benchmarks.core.predictions import MethodInfo
from matcher.errors import InputError
from matcher.model.network import TwoViewNetwork
from matcher.structures import ImageSize
from matcher.synthetic.fixtures import make_test_pair
from matcher.training import validate
from matcher.training.config import DataConfig
from matcher.training.state import initial_network


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Photographs and three calibrated pairs."""
    noise = np.random.default_rng(3).uniform(0, 255, (3, 120, 160, 3)).astype(np.float32)
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(noise):
        smooth = np.asarray(cv2.GaussianBlur(image, (0, 0), 3))
        spread = np.clip((smooth - smooth.mean()) / smooth.std() * 50 + 128, 0, 255)
        path = tmp_path / "photos" / f"{index}.png"
        assert cv2.imwrite(str(path), spread.astype(np.uint8))
    (tmp_path / "dev").mkdir()
    lines = []
    for index in range(3):
        pair = make_test_pair(index, ImageSize(96, 128), 10.0)
        for side, image in enumerate((pair.image0, pair.image1)):
            assert cv2.imwrite(str(tmp_path / "dev" / f"{index}_{side}.png"), image[..., ::-1])
        record = {
            "image0": f"{index}_0.png",
            "image1": f"{index}_1.png",
            "K0": pair.k.tolist(),
            "K1": pair.k.tolist(),
            "T_0to1": pair.cam1_from_cam0.tolist(),
        }
        lines.append(json.dumps(record) + "\n")
    (tmp_path / "dev" / "pairs.jsonl").write_text("".join(lines))
    return ["--photos", str(tmp_path / "photos"), "--dev", str(tmp_path / "dev")]


TOY = "--model tiny --minutes 0.005 --image-size 32 --batch-size 2 --matches 32 --threads 1"
TOY += " --photo-pairs 4 --photo-size 64 --dev-pairs 2 --view-size 64"


@pytest.mark.slow
def test_variants_are_trained_scored_and_tabled_once(
    sources: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(validate, "_NUM_PAIRS", 2)  # of the trainings' own figure
    out = tmp_path / "out"
    arguments = ["--out", str(out), *sources, *TOY.split()]
    assert main([*arguments, "--variants", "base"]) == 0
    assert main([*arguments, "--variants", "mlp,croco"]) == 0
    table = (out / "ablations.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| variant",
        "| ---",
        "| `base`",
        "| ",
        "| `mlp`",
        "| ",
        "| `croco`",
        "| ",
    ]
    assert "0.005 minutes of processor time" in table
    assert "AUC of the relative pose on 2 random pairs" in table
    result = runs.read_result(out / "croco")
    assert result is not None
    assert set(result.numbers) == {"descriptors", "points"}
    for numbers in result.numbers.values():
        assert {"within 1.5 px", "AUC@20"} <= set(numbers)
        assert all(0 <= number.value <= 1 for number in numbers.values())
        assert numbers["within 3 px"].count == 4
        assert numbers["AUC@20"].count == 2
    for name in ("base", "mlp", "croco"):
        known = runs.read_result(out / name)
        assert known is not None
        assert 0.005 <= known.minutes < 0.5
    assert (out / "croco" / "completion" / "completions.png").exists()

    # What is done is not done again; other options need another folder.
    monkeypatch.setattr(runs, "train", None)
    capsys.readouterr()
    assert main([*arguments, "--variants", "mlp,croco"]) == 0
    assert "croco: known" in capsys.readouterr().out
    assert main([*arguments, "--variants", "base", "--seed", "3"]) == 2
    assert "--out: expected a folder of the same options" in capsys.readouterr().err
    assert main([*arguments, "--variants", "nonsense"]) == 2
    assert "--variants: expected some of base, mlp" in capsys.readouterr().err


def test_every_variant_changes_something_and_can_be_built() -> None:
    recipe = Recipe(DataConfig(scene_pools=("scenes",), photos=("photos",)), model="tiny")
    base = base_config(recipe)
    seen = [(json.dumps(base.to_dict()), 0.0)]
    for variant in VARIANTS[1:]:
        changed = variant.change(base)
        assert changed.max_minutes == base.max_minutes
        assert changed.stages == base.stages
        key = (json.dumps(changed.to_dict()), variant.pretrain_share)
        # The tiny base is random already, and one block cannot be halved.
        if variant.name not in ("random", "croco-random", "shallow"):
            assert key not in seen, variant.name
        seen.append(key)
        assert isinstance(initial_network(changed), TwoViewNetwork)
    small = base_config(Recipe(recipe.data))
    changed_small = {variant.name: variant.change(small) for variant in VARIANTS}
    widths = {name: one.model.encoder.embed_dim for name, one in changed_small.items()}
    assert {name: width for name, width in widths.items() if width != widths["base"]} == {
        "narrow": 256,
        "wide": 512,
    }
    # A stem of patches has no trunk to begin with.
    assert changed_small["released"].model.stem == "patch"
    assert changed_small["released"].initialise == "random"
    with pytest.raises(InputError):
        chosen_variants("base,nothing")
    with pytest.raises(InputError):
        Recipe(recipe.data, model="huge")


def test_matching_by_points_finds_the_nearest_points() -> None:
    """Pointmaps of a plane seen shifted by eight pixels."""

    class Maps:
        points0 = np.stack([*np.meshgrid(np.arange(40.0), np.arange(32.0)), np.ones((32, 40))], -1)
        points1 = points0 + np.array([8.0, 0.0, 0.0])
        original0_from_network = np.diag([2.0, 2.0, 1.0])
        original1_from_network = np.eye(3)

    class Answer:
        pointmaps = Maps

    class Fake:
        def match(self, image0: object, image1: object) -> Answer:
            return Answer()

    method = PointMatching(MethodInfo("toy", "none", "0", ""), Fake())  # type: ignore[arg-type]
    found = method.match(np.zeros((64, 80, 3), np.uint8), np.zeros((32, 40, 3), np.uint8))
    assert len(found) == 8 * 8  # of ten columns, two have left the view
    assert np.allclose(found.keypoints0 / 2 - [8, 0], found.keypoints1)
