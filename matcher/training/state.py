"""What a run is at one moment, and how it is stored."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from matcher.checkpoints import load_checkpoint, load_croco
from matcher.errors import CheckpointError, InputError
from matcher.model.builders import two_view_from_croco
from matcher.model.config import ModelConfig
from matcher.model.network import TwoViewNetwork
from matcher.model.stem import ConvolutionalStem
from matcher.training.config import RunConfig
from matcher.training.stages import FREEZABLE_PARTS
from matcher.training.trunk import load_trunk

__all__ = [
    "LAST_NAME",
    "TrainingState",
    "build_state",
    "device_of",
    "freeze",
    "initial_network",
    "load_state",
    "new_state",
    "restore",
    "save_state",
    "with_own_points",
    "without_own_points",
]

LAST_NAME = "last.pt"
NetworkT = TypeVar("NetworkT", bound=nn.Module)

# What a truncated or foreign file makes torch.load and the reading of its parts raise.
_UNREADABLE = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
)


@dataclass(slots=True)
class TrainingState(Generic[NetworkT]):
    """Everything that a resumed run needs.

    The pairs and masks of a step follow from the seed and the step's number, and nothing draws
    from a global generator: there is no state of random numbers to keep.

    Attributes:
        network: the weights being trained.
        average: their exponential moving average, which is shipped.
        optimizer: AdamW.
        step, pairs, seconds, skipped: how far the run is.
    """

    network: NetworkT
    average: NetworkT
    optimizer: torch.optim.Optimizer
    step: int = 0
    pairs: int = 0
    seconds: float = 0.0
    skipped: int = 0


def build_state(config: RunConfig) -> TrainingState[TwoViewNetwork]:
    """A fresh two-view network, its average and its optimiser."""
    return new_state(initial_network(config), config)


def initial_network(config: RunConfig) -> TwoViewNetwork:
    """The network that a run starts from; the global generator is left as it was.

    Raises:
        InputError: ``initialise`` names nothing, or another network.
        CheckpointError, MissingDependencyError: its file cannot be read, the trunk is not there.
    """
    device_of(config.device)  # first: it is the cheapest to be wrong
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        if config.initialise in ("trunk", "random"):
            network = TwoViewNetwork(config.model)
        else:
            network = _loaded(config)
    if config.initialise == "trunk":
        assert isinstance(network.encoder.stem, ConvolutionalStem)
        load_trunk(network.encoder.stem)
    return network


def _loaded(config: RunConfig) -> TwoViewNetwork:
    try:
        loaded = load_checkpoint(config.initialise, torch.device("cpu")).network
    except CheckpointError as error:
        try:
            croco = load_croco(config.initialise).network
        except (CheckpointError, InputError):
            raise error from None
        return two_view_from_croco(croco, config.model)
    if loaded.config != config.model:
        loaded = with_own_points(loaded, config.model) or loaded
    if loaded.config != config.model:
        raise InputError(
            "initialise",
            "a checkpoint of the network that the configuration describes",
            f"{config.initialise}, another network",
        )
    return loaded.train()


def with_own_points(network: TwoViewNetwork, model: ModelConfig) -> TwoViewNetwork | None:
    """The same network with what its pointmaps lack of ``model``; it answers the same at first.

    Places come in with weights of 0, own decoder blocks and layers as copies of the shared ones.
    ``None``: ``model`` differs in something else, or has less.
    """
    head = network.config.head
    lacks_places = model.head.point_places and not head.point_places
    lacks_trunk = model.points_depth > 0 and network.config.points_depth == 0
    wanted = dataclasses.replace(
        network.config,
        head=dataclasses.replace(head, point_places=head.point_places or lacks_places),
        points_depth=model.points_depth if lacks_trunk else network.config.points_depth,
    )
    if wanted != model or not (lacks_places or lacks_trunk):
        return None
    grown = TwoViewNetwork(model)
    weights = grown.state_dict()
    given = network.state_dict()
    if lacks_trunk:
        given |= _copies_for_points(given, model)
    weights.update({name: value for name, value in given.items() if name in weights})
    grown.load_state_dict(weights)
    return grown.train(network.training)


def without_own_points(network: TwoViewNetwork) -> TwoViewNetwork:
    """The network with one trunk for descriptors and pointmaps, whose points layers it keeps."""
    if network.config.points_depth == 0:
        return network
    shared = TwoViewNetwork(dataclasses.replace(network.config, points_depth=0))
    given = network.state_dict()
    weights = {name: given.get(name, value) for name, value in shared.state_dict().items()}
    for name in weights:
        own = name.replace("head0.fused.points_", "head0.fused_points.points_")
        weights[name] = given.get(own, weights[name])
    shared.load_state_dict(weights)
    return shared.train(network.training)


def _copies_for_points(given: Mapping[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """Tensors of a shared trunk under the names of the pointmaps' own."""
    starts = {
        f"decoder.blocks0.{model.shared_depth + index}.": f"points_decoder.blocks.{index}."
        for index in range(model.points_depth)
    }
    starts |= {"decoder.norm.": "points_decoder.norm.", "head0.fused.": "head0.fused_points."}
    return {
        own + name.removeprefix(shared): value
        for name, value in given.items()
        for shared, own in starts.items()
        if name.startswith(shared)
    }


def new_state(network: NetworkT, config: RunConfig) -> TrainingState[NetworkT]:
    """The beginning of a run with a network, which is moved to the configuration's device."""
    network = network.to(device=device_of(config.device))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        _parameter_groups(network, config), lr=config.learning_rate, betas=(0.9, 0.95), fused=True
    )
    return TrainingState(network, average, optimizer)


def _parameter_groups(network: nn.Module, config: RunConfig) -> list[dict[str, Any]]:
    """Stem and rest, with and without weight decay (none for vectors)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        key = (in_convolutional_stem(name), parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decays else 0.0,
            "scale": config.stem_learning_rate_scale if in_stem else 1.0,
            "in_stem": in_stem,
        }
        for (in_stem, decays), parameters in sorted(groups.items(), key=lambda entry: entry[0])
    ]


def in_convolutional_stem(name: str) -> bool:
    """Whether a parameter belongs to the trunk; the projection behind it is as new as the rest."""
    path = name.removeprefix("two_view.")
    return path.startswith("encoder.stem.") and not path.startswith("encoder.stem.proj")


def freeze(network: nn.Module, config: RunConfig, progress: float) -> bool:
    """Let the parts learn that learn at a share of the run; whether anything changed."""
    stage = config.stages[config.stage_index(progress)]
    starts = tuple(start for part in stage.frozen for start in FREEZABLE_PARTS[part])
    stem_rests = progress < config.stem_frozen_until
    changed = False
    for name, parameter in network.named_parameters():
        rests = name.removeprefix("two_view.").startswith(starts) if starts else False
        rests = rests or (stem_rests and in_convolutional_stem(name))
        changed |= parameter.requires_grad == rests
        parameter.requires_grad_(not rests)
    return changed


def device_of(name: str) -> torch.device:
    """The device of a name; raises ``InputError`` unless this machine has it."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError("device", "a device of this machine", f"{name!r} ({reason})") from None
    return device


def save_state(path: Path, state: TrainingState[Any], config: RunConfig) -> None:
    """Write the state beside ``path`` and rename it, so that a crash never loses the last one.

    Raises:
        CheckpointError: it cannot be written, for instance because the disk is full.
    """
    temporary = path.with_suffix(".tmp")
    try:
        torch.save(
            {
                "config": json.dumps(config.to_dict()),
                "network": state.network.state_dict(),
                "average": state.average.state_dict(),
                "optimizer": state.optimizer.state_dict(),
                "step": state.step,
                "pairs": state.pairs,
                "seconds": state.seconds,
                "skipped": state.skipped,
            },
            temporary,
        )
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch turns a short write into a RuntimeError
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"training state {path}: cannot be written: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path, config: RunConfig) -> TrainingState[TwoViewNetwork]:
    """Read a state of a two-view network; raises as ``restore``."""
    # The stored weights replace all of it: neither a trunk nor a checkpoint is needed.
    state = build_state(dataclasses.replace(config, initialise="random"))
    restore(path, state, config)
    return state


def restore(path: Path, state: TrainingState[Any], config: RunConfig) -> None:
    """Fill ``state`` with what ``save_state`` wrote, in place.

    Raises:
        CheckpointError: unreadable, or of another network.
    """
    try:
        stored = torch.load(path, map_location=config.device, weights_only=True)
        if ModelConfig.from_dict(json.loads(stored["config"])["model"]) != config.model:
            raise ValueError("it is of another network than the configuration's")
        state.network.load_state_dict(stored["network"])
        state.average.load_state_dict(stored["average"])
        groups = stored["optimizer"]["param_groups"]
        for group, wanted in zip(groups, state.optimizer.param_groups, strict=True):
            # What the run was started with gives way to the configuration.
            group.update({name: wanted[name] for name in ("weight_decay", "scale", "fused")})
        state.optimizer.load_state_dict(stored["optimizer"])
        state.step, state.pairs = int(stored["step"]), int(stored["pairs"])
        state.seconds = float(stored["seconds"])
        state.skipped = int(stored.get("skipped", 0))  # files of version 0.1 do not count them
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"training state {path}: cannot be read: {reason}") from None
