"""Where a number comes from: everything that could move a digit."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.core.samples import Dataset

__all__ = ["Provenance", "collect_provenance", "pair_list_sha256"]

_PACKAGES = (
    "widebase",
    "torch",
    "numpy",
    "opencv-python",
    "poselib",
    "kornia",
    "faiss-cpu",
    "scipy",
)
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Provenance:
    """The circumstances of a run.

    Attributes:
        commit: of the checkout, with ``+changes`` where tracked files differ from it.
        versions: (package, version) in alphabetical order.
        python, system, processor, device: what it ran on.
        threads: of torch and OpenCV.
        pair_list_sha256: of the names and the truth of all pairs.
        num_pairs: in the list, unreadable ones included.
        started: UTC, ISO 8601.
        command: as typed.
    """

    commit: str
    versions: tuple[tuple[str, str], ...]
    python: str
    system: str
    processor: str
    device: str
    threads: int
    pair_list_sha256: str
    num_pairs: int
    started: str
    command: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**dataclasses.asdict(self), "versions": dict(self.versions)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Provenance:
        """The inverse of ``to_dict``."""
        versions = tuple(sorted(dict(values["versions"]).items()))
        return cls(**{**values, "versions": versions})


def pair_list_sha256(dataset: Dataset) -> str:
    """Hash of the pairs, their truth and the pairs that could not be read; not of any folder."""
    digest = hashlib.sha256()
    for sample in dataset.samples:
        digest.update(f"{sample.name}\0{sample.group}\0{sample.unit_name}\0".encode())
        for entry in dataclasses.fields(sample.truth):
            value = getattr(sample.truth, entry.name)
            if hasattr(value, "tobytes"):
                digest.update(value.tobytes())
            elif isinstance(value, int | float | str | tuple):
                digest.update(repr(value).encode())
    for name, _ in dataset.problems:
        digest.update(f"unreadable {name}\0".encode())
    return digest.hexdigest()


def collect_provenance(dataset: Dataset, device: str = "cpu") -> Provenance:
    """What this process is and where it runs."""
    versions = []
    for package in _PACKAGES:
        try:
            versions.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    return Provenance(
        commit=_commit(),
        versions=tuple(sorted(versions)),
        python=platform.python_version(),
        system=platform.platform(),
        processor=_processor(),
        device=torch.cuda.get_device_name() if device.startswith("cuda") else device,
        threads=torch.get_num_threads(),
        pair_list_sha256=pair_list_sha256(dataset),
        num_pairs=len(dataset.samples) + len(dataset.problems),
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(["python", "-m", "benchmarks", *map(_without_folders, sys.argv[1:])]),
    )


def _without_folders(argument: str) -> str:
    """An argument without the folders of this machine above a path's last part."""
    return Path(argument).name if os.path.isabs(argument) else argument


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({os.cpu_count()} CPUs)"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()} ({os.cpu_count()} CPUs)"
