"""Several processes that train one network: what ``torchrun`` started, or this process alone.

Every process draws its rows of each batch. ``DistributedDataParallel`` averages the gradients;
the losses are divided by what the whole batch holds, so that the result is that of one process
with the whole batch, also where the processes see unequal numbers of pixels or matches.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from matcher.training.config import RunConfig
from matcher.training.masking import MaskedMean, keep_where, masked_mean

__all__ = ["World", "joined", "prepared"]

TermsT = TypeVar("TermsT")


@dataclass(frozen=True, slots=True)
class World:
    """This process among those of the run.

    Attributes:
        rank: 0 writes, logs and measures.
        size: number of processes.
        device: of this process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    @property
    def masked_mean(self) -> MaskedMean:
        """The mean over the whole batch, as far as averaging over the processes completes it."""
        return masked_mean if self.size == 1 else self._share_of_mean

    def _share_of_mean(self, values: Tensor, mask: Tensor) -> Tensor:
        count = mask.sum().float()
        dist.all_reduce(count)
        return keep_where(values, mask).sum() * self.size / count.clamp(min=1)

    def agree(self, progress: float, reason: int) -> tuple[float, int]:
        """The first process's progress, and the largest reason to stop of any; 0: none."""
        if self.size == 1:
            return progress, reason
        told = [progress if self.is_first else 0.0, float(reason)]
        shared = torch.tensor(told, dtype=torch.float64, device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        first, largest = shared.tolist()
        return first, int(largest)

    def together(self, terms: TermsT) -> TermsT:
        """A dataclass of scalar tensors over all processes: counts added, the rest averaged."""
        if self.size == 1:
            return terms
        changes: dict[str, Tensor] = {}
        for entry in dataclasses.fields(terms):  # type: ignore[arg-type]
            value = getattr(terms, entry.name).detach().clone()
            dist.all_reduce(value)
            changes[entry.name] = value / self.size if value.is_floating_point() else value
        result: TermsT = dataclasses.replace(terms, **changes)  # type: ignore[type-var]
        return result


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that ``torchrun`` started; alone without it.

    Args:
        device: of the configuration; ``cuda`` becomes the GPU of this process's local rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not dist.is_available():
        yield World(device=device)
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if str(device) == "cuda":
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    was_ready = dist.is_initialized()
    if not was_ready:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank, size, device)
    finally:
        if not was_ready:
            dist.destroy_process_group()


def prepared(forward: nn.Module, config: RunConfig, world: World) -> Callable[..., Any]:
    """``forward`` as it is called in a step: shared between processes, and compiled on a GPU.

    Made again whenever parts are frozen or released: the processes exchange gradients of what
    learned when it was made.
    """
    called: Callable[..., Any] = forward
    if world.size > 1:
        # Some parameters have no gradient in some steps: of a frozen head, of a level without use.
        called = DistributedDataParallel(
            forward,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=True,
        )
    if config.compile_steps and torch.device(config.device).type == "cuda":
        called = torch.compile(called)
    return called
