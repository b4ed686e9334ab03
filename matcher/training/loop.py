"""The loop of every run: bounded, logged, saved, interrupted between steps."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from matcher.errors import DatasetError, InputError
from matcher.files import replaced
from matcher.training.config import RunConfig, Stage
from matcher.training.datasets import PairStream, make_loader
from matcher.training.distributed import World, prepared
from matcher.training.interrupts import Interrupted, StopWish, stop_wishes
from matcher.training.reports import StepReport, detached, mean_terms, report_record
from matcher.training.samples import TrainingBatch
from matcher.training.state import LAST_NAME, TrainingState, freeze, save_state
from matcher.training.steps import set_learning_rate, update

__all__ = [
    "LOG_NAME",
    "MODEL_NAME",
    "Listener",
    "Loop",
    "Objective",
    "Terms",
    "open_run",
    "session_folder",
]

LOG_NAME = "log.jsonl"
MODEL_NAME = "model.safetensors"
_TIME_IS_UP = 1
"""Why a run ends, beside the numbers of signals, which are larger."""
_log = logging.getLogger(__name__)
NetworkT = TypeVar("NetworkT", bound=nn.Module)
Listener = Callable[[StepReport[Any, Any]], None]


class Terms(Protocol):
    """The losses of a batch: a dataclass of scalar tensors, the counts among them integers."""

    JUDGED_ON: ClassVar[Mapping[str, str]]

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        ...

    def values(self) -> Any:
        """A dataclass of plain numbers, for the log."""
        ...


class Objective(Protocol[NetworkT]):
    """What a run learns."""

    def forward(self, network: NetworkT) -> nn.Module:
        """The part of a step that is shared between processes and compiled."""
        ...

    def loss(
        self, network: NetworkT, batch: TrainingBatch, stage: Stage, step: int, forward: Any
    ) -> Terms:
        """The losses of a batch; the same step draws the same random numbers."""
        ...

    def validate(self, average: NetworkT) -> Any:
        """A dataclass of plain numbers, or ``None`` where there is nothing to measure on."""
        ...

    def export(self, folder: Path, state: TrainingState[NetworkT]) -> None:
        """Write what a user of the weights needs."""
        ...


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"{folder} ({error.strerror})"
        raise InputError("output_dir", "a folder that can be written", reason) from None


def session_folder(output_dir: str | os.PathLike[str], report_every: int, resume: bool) -> Path:
    """The folder of a run; raises ``InputError`` where there is one already, or none to resume."""
    if report_every < 1:
        raise InputError("report_every", "at least 1", f"{report_every}")
    folder = Path(output_dir)
    last = folder / LAST_NAME
    if last.exists() and not resume:
        raise InputError("output_dir", "a folder without a run, or resume", f"{folder}")
    if resume and not last.exists():
        raise InputError("output_dir", f"a run to resume ({LAST_NAME})", f"{folder}")
    return folder


def open_run(folder: Path, config: RunConfig, step: int, resume: bool) -> None:
    """Make the folder, write the configuration, and end the log where the state ends.

    Raises:
        InputError: it cannot be written.
    """
    log = folder / LOG_NAME
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(folder / "config.json") as temporary:
            temporary.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
        if not resume:  # of a run that ended before it could save anything
            log.unlink(missing_ok=True)
        elif log.exists():
            # Steps after the last saved one are taken again.
            kept = [line for line in log.read_text("utf-8").splitlines() if _is_until(line, step)]
            with replaced(log) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), "utf-8")


def _is_until(line: str, step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, TypeError, LookupError):
        return False  # cut by the crash


class Loop(Generic[NetworkT]):
    """The steps of one session.

    Args:
        config: the run.
        folder: its files; only the first process writes them.
        state: where it stands.
        objective: what it learns.
        world: this process among those of the run.
        on_report: called with every log line.
        report_every: steps between log lines.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        state: TrainingState[NetworkT],
        objective: Objective[NetworkT],
        world: World,
        on_report: Listener | None,
        report_every: int,
    ) -> None:
        self.config = config
        self.folder = folder
        self.state = state
        self.objective = objective
        self.world = world
        self.on_report = on_report
        self.report_every = report_every
        self.now = time.process_time if config.clock == "cpu" else time.monotonic
        self.before = state.seconds
        self.started = self.saved = self.validated = self.now()
        self.reported = (time.monotonic(), state.pairs)
        self.unreported: list[Terms] = []
        self.is_whole = True
        self.said: set[str] = set()

    @property
    def seconds(self) -> float:
        """Time of the whole run so far, resumed parts together."""
        return self.before + self.now() - self.started

    def run(self, stream: PairStream) -> None:
        """Steps until the run is over; an interrupt waits for the step and the saving."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.config.num_threads)
        batches = iter(make_loader(stream))
        first_step = self.state.step
        try:
            with stop_wishes() as wish:
                terms, reason = self._steps(stream, batches, wish)
                if reason > _TIME_IS_UP:
                    raise Interrupted(reason, self.state.step)
                if terms is not None:
                    self._end(terms)
        except (KeyboardInterrupt, DatasetError):
            # A state that an optimiser's step left half changed is not worth keeping.
            if self.is_whole and self.state.step > first_step:
                self._save()
            raise
        finally:
            torch.set_num_threads(threads)
            # Left to the garbage collector, workers would live as long as a traceback does.
            if hasattr(batches, "_shutdown_workers"):
                batches._shutdown_workers()

    def _end(self, terms: Terms) -> None:
        counters = self._counters()
        if self.world.is_first:
            result = self.objective.validate(self.state.average)
            self._write(StepReport(*counters, 0.0, terms.values(), self.state.skipped, result))
        self._save()

    def _steps(
        self, stream: PairStream, batches: Iterator[TrainingBatch], wish: StopWish
    ) -> tuple[Terms | None, int]:
        """The losses since the last line, ``None`` without a step, and why no other followed."""
        config, state = self.config, self.state
        forward: Callable[..., Any] | None = None
        terms: Terms | None = None
        while True:
            progress = config.progress(state.step, self.seconds)
            time_is_up = self.seconds >= 60 * config.max_minutes
            reason = wish.signal_number or (_TIME_IS_UP if time_is_up else 0)
            progress, reason = self.world.agree(progress, reason)
            if progress >= 1 or reason:
                break
            index = config.stage_index(progress)
            stream.set_stage(index)
            rate = set_learning_rate(state, config, progress)
            if freeze(state.network, config, progress) or forward is None:
                forward = prepared(self.objective.forward(state.network), config, self.world)
            try:
                batch = _next_batch(batches).to(self.world.device)
            except RuntimeError:
                if not wish.signal_number:
                    raise
                reason = wish.signal_number  # it reached the workers too, and ended them
                break
            terms = self.objective.loss(
                state.network, batch, config.stages[index], state.step, forward
            )
            self.unreported.append(detached(terms))
            self.is_whole = False
            update(state, terms.total, config)
            state.step += 1
            state.pairs += len(batch.sources) * self.world.size
            self._count_skipped(batch)
            self.is_whole = True
            if state.step % self.report_every == 0:
                self._report(rate)
            if self.now() - self.saved > 60 * config.checkpoint_minutes:
                self._save()
        if terms is None:
            return None, reason
        return self.world.together(mean_terms(self.unreported or [detached(terms)])), reason

    def _count_skipped(self, batch: TrainingBatch) -> None:
        self.state.skipped += len(batch.skipped)
        for reason in set(batch.skipped) - self.said:
            if len(self.said) < 20:  # a broken source has a line for every file
                _log.warning("a pair was left out: %s", reason)
            self.said.add(reason)

    def _counters(self) -> tuple[int, float, float, int, float]:
        now, (then, pairs) = time.monotonic(), self.reported
        self.reported = (now, self.state.pairs)
        speed = (self.state.pairs - pairs) / max(now - then, 1e-9)
        state, seconds = self.state, self.seconds
        progress = self.config.progress(state.step, seconds)
        return state.step, progress, seconds / 60, state.pairs, speed

    def _report(self, rate: float) -> None:
        counters, terms = self._counters(), self.world.together(mean_terms(self.unreported))
        self.unreported.clear()
        if not self.world.is_first:
            return
        due = self.now() - self.validated > 60 * self.config.validate_minutes
        result = self.objective.validate(self.state.average) if due else None
        if due:
            self.validated = self.now()
        self._write(StepReport(*counters, rate, terms.values(), self.state.skipped, result))

    def _write(self, report: StepReport[Any, Any]) -> None:
        line = json.dumps(report_record(report), allow_nan=False)
        with _writing(self.folder), (self.folder / LOG_NAME).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        if self.on_report is not None:
            self.on_report(report)

    def _save(self) -> None:
        self.state.seconds = self.seconds
        if self.world.is_first:
            save_state(self.folder / LAST_NAME, self.state, self.config)
            self.objective.export(self.folder, self.state)
        self.saved = self.now()


def _next_batch(batches: Iterator[TrainingBatch]) -> TrainingBatch:
    try:
        return next(batches)
    except DatasetError as error:
        # One from a worker process brings its whole traceback as text; the last line is the cause.
        *rest, cause = str(error).strip().splitlines()
        raise DatasetError(cause.partition("DatasetError: ")[2] if rest else cause) from None
