"""Tasks: how each kind of truth is scored."""

from __future__ import annotations

from benchmarks.core.tasks import Task
from benchmarks.tasks.correspondences import CorrespondencesTask
from benchmarks.tasks.homography import HomographyTask
from benchmarks.tasks.localization import LocalizationTask
from benchmarks.tasks.metric_pose import MetricPoseTask
from benchmarks.tasks.multiview import MultiViewTask
from benchmarks.tasks.pose import PoseTask
from matcher.errors import InputError

__all__ = ["task_for"]

_TASKS: tuple[Task, ...] = (
    CorrespondencesTask(),
    HomographyTask(),
    LocalizationTask(),
    MetricPoseTask(),
    MultiViewTask(),
    PoseTask(),
)


def task_for(kind: str) -> Task:
    """The task that scores a kind of data set; raises ``InputError`` for an unknown kind."""
    for task in _TASKS:
        if task.kind == kind:
            return task
    raise InputError("kind", " or ".join(task.kind for task in _TASKS), f"{kind!r}")
