"""Training further: from matches alone, with frozen parts, from a released checkpoint."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from heads import HeadConfig
from matcher.checkpoints import CheckpointInfo, load_checkpoint, save_native, write_released
from matcher.cli import main
from matcher.errors import DatasetError, InputError
from matcher.model.config import CroCoConfig, ModelConfig, TransformerConfig
from matcher.model.croco import CroCoNetwork
from matcher.model.network import TwoViewNetwork
from matcher.training.config import DataConfig, Stage, TrainConfig
from matcher.training.datasets import PairStream
from matcher.training.manifest import write_correspondences
from matcher.training.motion import Motion, rotation_degrees
from matcher.training.posed_depth import ScenePool, _choose_pair
from matcher.training.stages import FREEZABLE_PARTS
from matcher.training.state import build_state, initial_network
from matcher.training.steps import loss_options
from matcher.training.train import train

Make = Callable[..., TrainConfig]


@pytest.fixture
def matches_only(tmp_path: Path, photo: npt.NDArray[np.uint8]) -> Path:
    """A manifest of one pair of photographs with matches: no camera, no pose, no depth."""
    assert cv2.imwrite(str(tmp_path / "0.png"), photo)
    assert cv2.imwrite(str(tmp_path / "1.png"), photo[:, 10:])
    grid = np.stack(np.meshgrid(np.arange(20, 250, 6), np.arange(5, 195, 6)), -1).reshape(-1, 2)
    write_correspondences(tmp_path / "matches.npz", grid, grid - [10, 0])
    record = {"image0": "0.png", "image1": "1.png", "correspondences": "matches.npz"}
    manifest = tmp_path / "pairs.jsonl"
    manifest.write_text(json.dumps(record) + "\n")
    return manifest


def mast3r_like() -> ModelConfig:
    """The released architecture, tiny: patch stem, two decoders, DPT points, MLP features."""
    return ModelConfig(
        encoder=TransformerConfig(32, 2, 2),
        decoder=TransformerConfig(32, 4, 2),
        head=HeadConfig(
            points="dpt",
            local_features="mlp",
            feature_dim=16,
            last_dim=8,
            layer_dims=(8, 8, 8, 8),
        ),
        is_metric=True,
    )


def weights_of(network: torch.nn.Module, start: str) -> list[torch.Tensor]:
    return [
        one.detach().clone() for name, one in network.named_parameters() if name.startswith(start)
    ]


def moved(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_matches_alone_are_enough(toy: Make, matches_only: Path, tmp_path: Path) -> None:
    data = DataConfig(pair_manifests=(str(matches_only),), num_matches=64)
    config = toy(data=data, max_steps=2, max_minutes=60.0, stem_frozen_until=0.0)
    before = build_state(config).network
    state = train(config, tmp_path / "out", report_every=1)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert all(line["losses"]["num_pixels"] == 0 for line in lines)
    assert all(line["losses"]["pointmap"] == 0 for line in lines)
    assert all(line["losses"]["num_matches"] > 60 for line in lines)
    for part in ("encoder.", "decoder.", "head0."):
        assert moved(weights_of(before, part), weights_of(state.network, part))


def test_a_frozen_encoder_stays(toy: Make, matches_only: Path, tmp_path: Path) -> None:
    data = DataConfig(pair_manifests=(str(matches_only),), num_matches=64)
    stages = (Stage(1.0, 48, 2, frozen=("encoder",)),)
    config = toy(data=data, stages=stages, max_steps=2, max_minutes=60.0)
    before = build_state(config).network
    state = train(config, tmp_path / "out")
    assert not moved(weights_of(before, "encoder."), weights_of(state.network, "encoder."))
    assert moved(weights_of(before, "decoder."), weights_of(state.network, "decoder."))
    assert state.network.encoder.norm.weight.grad is None


def test_pointmaps_learn_and_descriptors_stay(toy: Make, tmp_path: Path) -> None:
    stage = Stage(
        1.0, 48, 2, matching_weight=0.0, ray_weight=3.0, frozen=("encoder", "decoder", "features")
    )
    config = toy(stages=(stage,), max_steps=3, max_minutes=60.0, ema_decay=0.0)
    before = build_state(config).network.eval()
    after = train(config, tmp_path / "out").average.eval()
    views = torch.rand(2, 1, 3, 48, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        old, new = before(*views), after(*views)
    for one, other in ((old.output0, new.output0), (old.output1, new.output1)):
        assert one.descriptors is not None
        assert other.descriptors is not None
        assert torch.equal(one.descriptors, other.descriptors)
        assert torch.equal(one.descriptor_confidence, other.descriptor_confidence)
        assert not torch.equal(one.points, other.points)


@pytest.mark.parametrize("stem", ["convolutional", "patch"])
def test_every_layer_of_a_head_is_named_once(stem: str) -> None:
    """What may rest as ``features`` and what only pointmaps use make up a whole head."""
    network = TwoViewNetwork(ModelConfig.tiny() if stem == "convolutional" else mast3r_like())
    features, own = FREEZABLE_PARTS["features"], FREEZABLE_PARTS["points"]
    names = [name for name, _ in network.named_parameters() if name.startswith(("head0", "head1"))]
    rest = [name for name in names if not name.startswith((*features, *own))]
    if stem == "patch":
        assert rest
    assert all(".points." in name for name in rest)
    assert any(name.startswith(own) for name in names) == (stem == "convolutional")
    assert len(rest) < len(names)


def test_a_released_checkpoint_is_fine_tuned(
    toy: Make,
    matches_only: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The released layout in, its network, licence and metric flag kept, our format out."""
    torch.manual_seed(0)
    released = TwoViewNetwork(mast3r_like())
    path = tmp_path / "MASt3R_tiny_metric.pth"
    write_released(path, released, licence="CC-BY-NC-SA-4.0")
    loaded = load_checkpoint(path)
    base = tmp_path / "base.json"
    config = toy(max_steps=2, max_minutes=60.0, stages=(Stage(1.0, 64, 2),))
    base.write_text(json.dumps(config.to_dict()))
    arguments = ["train", "--config", base, "--out", tmp_path / "out", "--data", matches_only]
    arguments += ["--initialise", path, "--freeze", "encoder", "--learning-rate", 1e-3]
    monkeypatch.setattr(sys, "argv", ["widebase", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    capsys.readouterr()
    tuned = load_checkpoint(tmp_path / "out" / "model.safetensors")
    assert tuned.network.config == loaded.network.config
    assert tuned.info.licence == loaded.info.licence
    assert tuned.info.licence != "unknown"
    for old, new in zip(
        weights_of(loaded.network, "encoder."), weights_of(tuned.network, "encoder."), strict=True
    ):
        torch.testing.assert_close(old, new, rtol=1e-3, atol=1e-4)  # float16
    used = TrainConfig.from_dict(json.loads((tmp_path / "out" / "config.json").read_text()))
    assert used.stages[0].frozen == ("encoder",)
    assert loss_options(used).pointmap.normalization == (
        "mean_distance_unless_metric" if tuned.network.config.is_metric else "mean_distance"
    )


def test_a_run_can_start_from_a_croco_network(toy: Make, tmp_path: Path) -> None:
    torch.manual_seed(0)
    stack = TransformerConfig(32, 2, 2)
    croco = CroCoNetwork(CroCoConfig(stack, stack))
    save_native(tmp_path / "croco.safetensors", croco, CheckpointInfo("croco"))
    head = HeadConfig(points="linear", local_features="mlp")
    model = ModelConfig(encoder=stack, decoder=stack, head=head)
    config = toy(model=model, initialise=str(tmp_path / "croco.safetensors"))
    network = initial_network(config)
    assert torch.equal(network.encoder.stem.proj.weight, croco.encoder.stem.proj.weight)
    with pytest.raises(InputError, match="config: expected a patch stem"):
        initial_network(dataclasses.replace(config, model=ModelConfig.tiny()))


def test_a_checkpoint_that_knows_no_places_is_trained_further(toy: Make, tmp_path: Path) -> None:
    model = ModelConfig.tiny()
    blind = dataclasses.replace(model, head=dataclasses.replace(model.head, point_places=False))
    torch.manual_seed(0)
    network = TwoViewNetwork(blind).eval()
    path = tmp_path / "blind.safetensors"
    save_native(path, network, CheckpointInfo("blind"))
    widened = initial_network(toy(initialise=str(path))).eval()
    assert widened.config == model
    views = torch.rand(2, 1, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        old, new = network(*views), widened(*views)
    assert torch.equal(old.output1.points, new.output1.points)
    assert torch.equal(old.output1.descriptors, new.output1.descriptors)
    with pytest.raises(InputError, match="another network"):
        initial_network(toy(model=ModelConfig.small(), initialise=str(path)))


def test_pointmaps_get_decoder_blocks_of_their_own(toy: Make, tmp_path: Path) -> None:
    """As copies, which answer the same at first and then learn alone, and cheaper."""
    model = ModelConfig.tiny()
    torch.manual_seed(0)
    network = TwoViewNetwork(dataclasses.replace(model, points_depth=0)).eval()
    path = tmp_path / "shared.safetensors"
    save_native(path, network, CheckpointInfo("shared"))
    stage = Stage(1.0, 48, 2, matching_weight=0.0, frozen=("encoder", "decoder", "features"))
    config = toy(initialise=str(path), stages=(stage,), max_steps=3, ema_decay=0.0)
    grown = initial_network(config).eval()
    assert grown.config == model
    views = torch.rand(2, 1, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        old, new = network(*views), grown(*views)
        raw, points = grown.forward_raw(*views), grown.forward_raw(*views, features=False)
    for name in ("points", "confidence", "descriptors", "descriptor_confidence"):
        assert torch.equal(getattr(old.output0, name), getattr(new.output0, name))
        assert torch.equal(getattr(old.output1, name), getattr(new.output1, name))
    assert points[0].features is None
    assert torch.equal(points[1].points, raw[1].points)
    began = build_state(config).network.eval()
    learned = train(config, tmp_path / "out").average.eval()
    with torch.no_grad():
        before, after = began(*views), learned(*views)
    assert torch.equal(before.output1.descriptors, after.output1.descriptors)
    assert not torch.equal(before.output1.points, after.output1.points)
    start, end = grown.points_decoder, learned.points_decoder
    assert start is not None
    assert end is not None
    assert not torch.equal(start.blocks[0].mlp.fc1.weight, end.blocks[0].mlp.fc1.weight)


def test_descriptors_learn_while_pointmaps_are_left_out(toy: Make, tmp_path: Path) -> None:
    stage = Stage(1.0, 48, 2, pointmap_weight=0.0, frozen=("points",))
    config = toy(stages=(stage,), max_steps=3, ema_decay=0.0)
    began = build_state(config).network
    assert began.forward_raw(*torch.zeros(2, 1, 3, 48, 48), points=False)[0].points is None
    state = train(config, tmp_path / "out")
    assert state.step == 3
    before, after = began.state_dict(), state.average.state_dict()
    resting = [name for name in before if name.startswith(FREEZABLE_PARTS["points"])]
    assert len(resting) > 10
    assert all(torch.equal(before[name], after[name]) for name in resting)
    assert not torch.equal(
        before["head0.fused.features_out.weight"], after["head0.fused.features_out.weight"]
    )
    lines = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["losses"] for line in lines]
    assert losses
    assert all(entry["num_pixels"] == 0 and entry["matching_error"] > 0 for entry in losses)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"points_depth": 2}, "points_depth: expected fewer blocks than the decoder's 2"),
        ({"points_depth": -1}, "points_depth: expected fewer blocks"),
        ({"share_views": False}, "points_depth: expected 0 without a fused head and shared views"),
    ],
)
def test_own_blocks_must_fit_the_network(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        dataclasses.replace(ModelConfig.tiny(), **changes)


def test_stages_have_their_own_weights() -> None:
    config = TrainConfig(matching_weight=1.0, pointmap_weight=0.5)
    stage = Stage(1.0, 64, 2, pointmap_weight=0.0)
    assert loss_options(config).pointmap_weight == 0.5
    options = loss_options(config, stage)
    assert (options.matching_weight, options.pointmap_weight) == (1.0, 0.0)
    assert loss_options(config, Stage(1.0, 64, 2, ray_weight=2.0)).pointmap.ray_weight == 2.0
    assert options.pointmap.normalization == "mean_distance"  # the usual model has no scale


@pytest.mark.parametrize(
    "motion",
    [
        Motion(overlap=(0.5, 1.0)),
        Motion(overlap=(0.05, 0.4)),
        Motion(rotation_degrees=(0.0, 30.0)),
        Motion(rotation_degrees=(30.0, 180.0)),
    ],
)
def test_the_motion_of_a_stage_is_kept(pool: Path, motion: Motion) -> None:
    source = ScenePool([str(pool)])
    random = np.random.default_rng(0)
    seen = 0
    for _ in range(40):
        group = source.draw_group(random)
        pair = _choose_pair(random, group, motion)
        if pair is None:
            continue
        seen += 1
        shared = min(group.overlaps[pair], group.overlaps[pair[::-1]])
        assert motion.overlap[0] <= shared <= motion.overlap[1]
        assert motion.allows_rotation(rotation_degrees(group.cam_from_world)[pair])
    assert seen


@pytest.mark.parametrize("focal", [(0.0, 1.0), (0.7, 10.0)])
def test_the_lenses_of_a_stage_are_kept(pool: Path, focal: tuple[float, float]) -> None:
    source = ScenePool([str(pool)])
    for seed in range(10):
        random = np.random.default_rng(seed)
        sample = source.draw(random, (48, 64), 16, Motion(focal=focal))
        assert sample.points0 is not None
        assert sample.valid0 is not None
        # x / z grows by 1 / f a column.
        depth = np.where(sample.valid0, sample.points0[..., 2], 1.0)
        ratio = sample.points0[..., 0] / depth
        both = sample.valid0[:, 1:] & sample.valid0[:, :-1]
        found = 1 / np.median(np.diff(ratio, axis=1)[both])
        assert focal[0] * 0.999 <= found / 64 <= focal[1] * 1.001


def test_a_lens_that_no_view_has_is_said(toy: Make) -> None:
    config = toy(stages=(Stage(1.0, 48, 1, motion=Motion(focal=(900.0, 1000.0))),))
    with pytest.raises(DatasetError, match=r"focal length 900 to 1000 long sides"):
        PairStream(config).batch(0)


def test_an_impossible_motion_is_said(toy: Make, pool: Path, monkeypatch: Any) -> None:
    config = toy(stages=(Stage(1.0, 48, 1, motion=Motion(overlap=(0.9999, 1.0))),))
    with pytest.raises(DatasetError, match=r"scenes: no two views .*\(overlap 0.9999 to 1, rot"):
        PairStream(config).batch(0)


@pytest.mark.parametrize(
    "changes",
    [
        {"frozen": ("tail",)},
        {"matching_weight": -1.0},
        {"ray_weight": -1.0},
        {"motion": {"focal": [2.0, 1.0]}},
        {"motion": {"overlap": [0.5, 0.2]}},
        {"motion": {"rotation_degrees": [0, 200]}},
        {"motion": {"overlap": 3}},
    ],
)
def test_impossible_parts_of_a_stage_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Stage.from_dict({"until": 1.0, "image_size": 64, "batch_size": 2, **changes})


def test_something_must_learn() -> None:
    with pytest.raises(InputError, match="stage frozen: expected a part that learns"):
        TrainConfig(stages=(Stage(1.0, 64, 2, frozen=("encoder", "decoder", "heads", "points")),))
    # Pointmaps have decoder blocks of their own.
    TrainConfig(stages=(Stage(1.0, 64, 2, frozen=("encoder", "decoder", "heads")),))
    shared = dataclasses.replace(ModelConfig.small(), points_depth=0)
    with pytest.raises(InputError, match="stage frozen: expected a part that learns"):
        TrainConfig(
            model=shared, stages=(Stage(1.0, 64, 2, frozen=("encoder", "decoder", "heads")),)
        )
