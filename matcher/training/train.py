"""The training loop: bounded in time, resumable, logged, the same on a CPU and on a GPU."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from heads import HeadConfig, RawMaps
from heads.activations import confidence_from_raw, dense_output, unit_descriptors
from matcher.checkpoints import CheckpointInfo, load_checkpoint, save_native
from matcher.errors import CheckpointError, DatasetError, InputError
from matcher.model.config import ModelConfig
from matcher.model.network import TwoViewNetwork
from matcher.model.stem import ConvolutionalStem
from matcher.training.config import TrainConfig
from matcher.training.datasets import PairStream, held_out_photos, make_loader
from matcher.training.losses import (
    LossOptions,
    LossTerms,
    LossValues,
    MatchingLossOptions,
    PixelFeatures,
    PointmapTargets,
    matching_loss,
    total_loss,
)
from matcher.training.samples import TrainingBatch
from matcher.training.trunk import load_trunk
from matcher.training.validate import ValidationResult, make_validation_set, validate

__all__ = ["StepReport", "TrainingState", "report_record", "train"]

LAST_NAME = "last.pt"
LOG_NAME = "log.jsonl"
MODEL_NAME = "model.safetensors"
_POINT_STRIDE = 4
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
_GPU_BACKENDS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)


@dataclass(frozen=True, slots=True)
class StepReport:
    """One line of the log."""

    step: int
    progress: float
    minutes: float
    pairs: int
    pairs_per_second: float
    learning_rate: float
    losses: LossValues
    validation: ValidationResult | None = None


def report_record(report: StepReport) -> dict[str, Any]:
    """Plain values that JSON can hold: a number that is not finite becomes ``None``."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(entry) for key, entry in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: plain(entry) for key, entry in dataclasses.asdict(report).items()}


@dataclass(slots=True)
class TrainingState:
    """Everything that a resumed run needs.

    Attributes:
        network: the weights being trained.
        average: their exponential moving average, which is shipped.
        optimizer: AdamW.
        step, pairs, seconds: how far the run is.
    """

    network: TwoViewNetwork
    average: TwoViewNetwork
    optimizer: torch.optim.Optimizer
    step: int = 0
    pairs: int = 0
    seconds: float = 0.0


def _parameter_groups(network: TwoViewNetwork, config: TrainConfig) -> list[dict[str, Any]]:
    """Stem and rest, with and without weight decay (none for vectors)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        in_stem = name.startswith("encoder.stem.") and not name.startswith("encoder.stem.proj")
        groups.setdefault((in_stem, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decays else 0.0,
            "scale": config.stem_learning_rate_scale if in_stem else 1.0,
            "in_stem": in_stem,
        }
        for (in_stem, decays), parameters in sorted(groups.items(), key=lambda entry: entry[0])
    ]


def build_state(config: TrainConfig) -> TrainingState:
    """A fresh network, its average and its optimiser; the global generator is left as it was."""
    device = _device(config.device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        network = TwoViewNetwork(config.model)
    if config.initialise == "trunk":
        assert isinstance(network.encoder.stem, ConvolutionalStem)
        load_trunk(network.encoder.stem)
    elif config.initialise != "random":
        _start_from(network, config)
    network = network.to(device=device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        _parameter_groups(network, config), lr=config.learning_rate, betas=(0.9, 0.95), fused=True
    )
    return TrainingState(network, average, optimizer)


def _start_from(network: TwoViewNetwork, config: TrainConfig) -> None:
    """Copy the weights of a checkpoint into ``network``, in place."""
    loaded = load_checkpoint(config.initialise, torch.device("cpu"))
    if loaded.network.config != config.model:
        raise InputError(
            "initialise",
            "a checkpoint of the network that the configuration describes",
            f"{config.initialise}, another network",
        )
    network.load_state_dict(loaded.network.state_dict())


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError("device", "a device of this machine", f"{name!r} ({reason})") from None
    return device


def save_state(path: Path, state: TrainingState, config: TrainConfig) -> None:
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
            },
            temporary,
        )
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch turns a short write into a RuntimeError
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"training state {path}: cannot be written: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


def export_model(
    path: Path, state: TrainingState, *, name: str = "", licence: str = "unknown", notes: str = ""
) -> CheckpointInfo:
    """Write the averaged weights as a checkpoint of our own format, float16.

    Args:
        path: the file.
        state: a run.
        name: how to call the model; by default the folder's name.
        licence: of the weights; it follows from the training data, which only the caller knows.
        notes: for the model card.
    """
    recipe = notes or f"{state.step} steps, {state.pairs} pairs, {state.seconds / 60:.0f} minutes"
    info = CheckpointInfo(
        name=name or path.resolve().parent.name, licence=licence, layout="native", notes=recipe
    )
    return save_native(path, state.average, info, dtype=torch.float16)


def load_state(path: Path, config: TrainConfig) -> TrainingState:
    """Read a state written by ``save_state``.

    Raises:
        CheckpointError: unreadable, or of another network.
    """
    # The stored weights replace all of it: no trunk is needed.
    state = build_state(dataclasses.replace(config, initialise="random"))
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
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"training state {path}: cannot be read: {reason}") from None
    return state


def learning_rate_at(config: TrainConfig, step: int, progress: float) -> float:
    """Linear warm-up over steps, then a cosine over the run's time down to 1 %."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * warm * decay


def _set_learning_rate(state: TrainingState, config: TrainConfig, progress: float) -> float:
    rate = learning_rate_at(config, state.step, progress)
    frozen = progress < config.stem_frozen_until
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
        if group["in_stem"]:
            for parameter in group["params"]:
                parameter.requires_grad_(not frozen)
    return rate


def loss_options(config: TrainConfig) -> LossOptions:
    """The losses of a run."""
    return LossOptions(
        matching=MatchingLossOptions(
            temperature=config.temperature,
            alpha=config.match_alpha,
            duplicate_radius_px=2.0,
            plain_descriptors=True,
        ),
        pointmap_weight=config.pointmap_weight,
        matching_weight=config.matching_weight,
    )


def compute_loss(network: TwoViewNetwork, batch: TrainingBatch, config: TrainConfig) -> LossTerms:
    """Forward pass of one batch in the configured precision, and its losses in float32.

    Only the pixels that a loss looks at are activated: descriptors at the correspondences and
    their negatives, points on every fourth pixel. That spares a third of a step on a CPU.
    """
    device = batch.pixels0.device.type
    # On a CPU the backward pass of the fused attention is slower than plain products.
    backends = [SDPBackend.MATH] if device == "cpu" else list(_GPU_BACKENDS)
    with (
        sdpa_kernel(backends),
        torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"),
    ):
        maps0, maps1 = network.forward_raw(batch.pixels0, batch.pixels1)
    options, head, pairs = loss_options(config), config.model.head, batch.correspondences
    points = total_loss(
        dense_output(_thin(maps0.points.float(), -2), None, head),
        dense_output(_thin(maps1.points.float(), -2), None, head),
        _thin_targets(batch.targets),
        None,
        options,
    )
    matching, matching_error = matching_loss(
        features_at(maps0, pairs.pixels0, pairs.negatives0, head),
        features_at(maps1, pairs.pixels1, pairs.negatives1, head),
        pairs,
        options.matching,
    )
    return dataclasses.replace(
        points,
        total=points.total + options.matching_weight * matching,
        matching=matching.detach(),
        matching_error=matching_error.detach(),
        num_matches=pairs.valid.sum(),
    )


def _thin(maps: Tensor, row_dim: int) -> Tensor:
    """Every fourth row and column; ``row_dim`` is the dimension of the rows, columns follow."""
    keep = slice(_POINT_STRIDE // 2, None, _POINT_STRIDE)
    return maps[..., keep, keep] if row_dim == -2 else maps[:, keep, keep]


def _thin_targets(targets: PointmapTargets) -> PointmapTargets:
    return PointmapTargets(
        _thin(targets.points0, 1),
        _thin(targets.points1, 1),
        _thin(targets.valid0, 1),
        _thin(targets.valid1, 1),
        targets.is_metric,
    )


def features_at(
    maps: RawMaps, pixels: Tensor, negatives: Tensor | None, head: HeadConfig
) -> PixelFeatures:
    """Unit descriptors and confidences at (B, N, 2) pixels and (B, M, 2) negatives, float32."""
    assert maps.features is not None
    width = maps.features.shape[3]
    everything = pixels if negatives is None else torch.cat([pixels, negatives], dim=1)
    index = everything[..., 1] * width + everything[..., 0]
    flat = maps.features.flatten(2)
    raw = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)).mT.float()
    descriptors = unit_descriptors(raw[..., : head.descriptor_dim])
    count = pixels.shape[1]
    confidence = None
    if head.separate_descriptor_confidence:
        confidence = confidence_from_raw(
            raw[:, :count, head.descriptor_dim], head.descriptor_confidence_activation
        )
    return PixelFeatures(
        descriptors[:, :count], confidence, None if negatives is None else descriptors[:, count:]
    )


def _update(state: TrainingState, loss: Tensor, config: TrainConfig) -> bool:
    """One optimiser step; a step whose gradient is not finite is left out."""
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), config.gradient_clip)
    if not bool(torch.isfinite(norm)):
        return False
    state.optimizer.step()
    decay = min(config.ema_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(
            list(state.average.parameters()), list(state.network.parameters()), 1 - decay
        )
    return True


def train(
    config: TrainConfig,
    output_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    on_report: Callable[[StepReport], None] | None = None,
    report_every: int = 20,
) -> TrainingState:
    """Train until ``config.max_minutes`` have been spent, over all resumed parts.

    Writes ``config.json``, ``log.jsonl`` (a line every ``report_every`` steps), ``last.pt`` and
    ``model.safetensors`` (at least every ``checkpoint_minutes``, at the end, and before an
    interrupt is passed on) into ``output_dir``. A run whose minutes are spent is left as it is.

    Args:
        config: the run.
        output_dir: created if missing.
        resume: continue from ``last.pt`` in ``output_dir``.
        on_report: called with every log line, for a progress bar.
        report_every: steps between log lines.

    Raises:
        InputError: ``output_dir`` holds a run already and ``resume`` is false, or the other way
            round; it cannot be written; or the device is not there.
        CheckpointError, DatasetError: what is read is broken, or the state cannot be written.
    """
    if report_every < 1:
        raise InputError("report_every", "at least 1", f"{report_every}")
    folder = Path(output_dir)
    last = folder / LAST_NAME
    if last.exists() and not resume:
        raise InputError("output_dir", "a folder without a run, or resume", f"{folder}")
    if resume and not last.exists():
        raise InputError("output_dir", f"a run to resume ({LAST_NAME})", f"{folder}")
    state = load_state(last, config) if resume else build_state(config)
    stream = PairStream(config, first_batch=state.step)
    validation = make_validation_set(held_out_photos(config)) if config.data.photos else []
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
        if not resume:  # of a run that ended before it could save anything
            (folder / LOG_NAME).unlink(missing_ok=True)
    loop = _Loop(config, folder, state, validation, on_report, report_every)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.num_threads)
    batches = iter(make_loader(stream))
    try:
        loop.run(stream, batches)
    finally:
        torch.set_num_threads(threads)
        # Left to the garbage collector, workers would live as long as a traceback refers to them.
        if hasattr(batches, "_shutdown_workers"):
            batches._shutdown_workers()
    return state


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"{folder} ({error.strerror})"
        raise InputError("output_dir", "a folder that can be written", reason) from None


def _next_batch(batches: Iterator[TrainingBatch]) -> TrainingBatch:
    try:
        return next(batches)
    except DatasetError as error:
        # One from a worker process brings its whole traceback as text; the last line is the cause.
        *rest, cause = str(error).strip().splitlines()
        raise DatasetError(cause.partition("DatasetError: ")[2] if rest else cause) from None


class _Loop:
    """The steps of one session, and its clocks."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        state: TrainingState,
        validation: list[TrainingBatch],
        on_report: Callable[[StepReport], None] | None,
        report_every: int,
    ) -> None:
        self.config = config
        self.folder = folder
        self.state = state
        self.validation = validation
        self.on_report = on_report
        self.report_every = report_every
        self.device = torch.device(config.device)
        self.before = state.seconds
        self.started = self.saved = self.validated = time.monotonic()
        self.reported = (time.monotonic(), state.pairs)

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        return self.seconds / (60 * self.config.max_minutes)

    def run(self, stream: PairStream, batches: Iterator[TrainingBatch]) -> None:
        """Steps until the time is spent; what was learned is saved before an interrupt goes on."""
        first_step = self.state.step
        try:
            terms = self._steps(stream, batches)
            if terms is not None:
                result = validate(self.state.average, self.validation) if self.validation else None
                self._write(StepReport(*self._counters(), 0.0, terms.values(), result))
                self._save()
        except (KeyboardInterrupt, DatasetError):
            if self.state.step > first_step:
                self._save()
            raise

    def _steps(self, stream: PairStream, batches: Iterator[TrainingBatch]) -> LossTerms | None:
        """The losses of the last step; ``None`` where no time was left for one."""
        state = self.state
        terms = None
        while self.progress < 1:
            stream.set_stage(self.config.stage_index(self.progress))
            rate = _set_learning_rate(state, self.config, self.progress)
            batch = _next_batch(batches).to(self.device)
            terms = compute_loss(state.network, batch, self.config)
            _update(state, terms.total, self.config)
            state.step += 1
            state.pairs += len(batch.sources)
            if state.step % self.report_every == 0:
                self._report(terms, rate)
            if time.monotonic() - self.saved > 60 * self.config.checkpoint_minutes:
                self._save()
        return terms

    def _counters(self) -> tuple[int, float, float, int, float]:
        now, (then, pairs) = time.monotonic(), self.reported
        self.reported = (now, self.state.pairs)
        speed = (self.state.pairs - pairs) / max(now - then, 1e-9)
        return self.state.step, self.progress, self.seconds / 60, self.state.pairs, speed

    def _report(self, terms: LossTerms, rate: float) -> None:
        counters = self._counters()
        due = time.monotonic() - self.validated > 60 * self.config.validate_minutes
        result = validate(self.state.average, self.validation) if due and self.validation else None
        if due:
            self.validated = time.monotonic()
        self._write(StepReport(*counters, rate, terms.values(), result))

    def _write(self, report: StepReport) -> None:
        line = json.dumps(report_record(report), allow_nan=False)
        with _writing(self.folder), (self.folder / LOG_NAME).open("a") as stream:
            stream.write(line + "\n")
        if self.on_report is not None:
            self.on_report(report)

    def _save(self) -> None:
        self.state.seconds = self.seconds
        save_state(self.folder / LAST_NAME, self.state, self.config)
        export_model(self.folder / MODEL_NAME, self.state)
        self.saved = time.monotonic()
