"""Which photographs of a collection show the same place: one descriptor each, and a search.

The descriptor is how much each channel of the encoder's tokens varies over the photograph (its
standard deviation), at unit length. Measured with the bundled model, on 30 queries against 16
photographs of one room (rank correlation of the similarity with the share of the photograph's
surface that the query sees; that share for the most similar one, relative to the best there is),
and on 310 photographs of ten places (share of the ten most similar that show the same place; rank
correlation with the overlap of pairs of one place):

    pooling                          one room       ten places
    mean                            0.52   0.79    0.98   0.53
    generalized mean, power 3       0.57   0.79    0.99   0.55
    maximum                         0.56   0.85    0.99   0.53
    VLAD, 16 words                  0.64   0.88
    covariance, 64 channels, root   0.80   0.87
    standard deviation              0.79   0.88    0.98   0.58
      centered                      0.69   0.87    0.98   0.56
      whitened                      0.36   0.85    0.85   0.44

A channel's mean says mostly what kind of place and light it is, which photographs of one place
share; its spread says what there is to see. Centering and whitening over so small a collection cost
more than they give.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from matcher.checkpoints import CheckpointInfo
from matcher.errors import DatasetError, InputError
from matcher.files import replaced
from matcher.photographs import Photographs
from matcher.pipeline import EncodedImage, Matcher, PairOptions

__all__ = ["DEFAULT_INDEX_NAME", "RetrievalIndex", "image_descriptor"]

DEFAULT_INDEX_NAME = ".widebase-retrieval.npz"
"""Beside the photographs; hidden, so that no list of a folder's photographs shows it."""

_FORMAT = 1
_KEYS = ("descriptors", "header")


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalIndex:
    """The descriptors of a collection's photographs, for one model.

    Attributes:
        names: of the photographs.
        descriptors: (N, C) float32, unit length.
        model: name of the weights that made them.
        licence: of these weights.
        sha256: hash of these weights, which decides whether a query may be compared.

    Raises:
        InputError: another shape of the descriptors, or numbers that are not finite.
    """

    names: tuple[str, ...]
    descriptors: npt.NDArray[np.float32]
    model: str
    licence: str
    sha256: str

    def __post_init__(self) -> None:
        shape = self.descriptors.shape
        if len(shape) != 2 or shape[0] != len(self.names):
            raise InputError("descriptors", f"shape ({len(self.names)}, C)", f"{shape}")
        if not np.isfinite(self.descriptors).all():
            raise InputError("descriptors", "finite numbers", "NaN or infinity")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def build(
        cls,
        matcher: Matcher,
        photographs: Photographs,
        *,
        options: PairOptions | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> RetrievalIndex:
        """Encode every photograph once.

        Args:
            matcher: whose encoder describes them.
            photographs: the collection.
            options: only the size of the view counts; ``None``: the matcher's own.
            progress: called after each photograph with (done, all).

        Raises:
            InputError: a photograph that cannot be read.
        """
        paths = [photographs.path(name) for name in photographs.names]
        return cls.of_files(matcher, photographs.names, paths, options=options, progress=progress)

    @classmethod
    def of_files(
        cls,
        matcher: Matcher,
        names: Sequence[str],
        paths: Sequence[Path],
        *,
        options: PairOptions | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> RetrievalIndex:
        """As :meth:`build`, for files that lie wherever they lie."""
        descriptors = []
        for number, (name, path) in enumerate(zip(names, paths, strict=True), start=1):
            descriptors.append(
                image_descriptor(matcher.encode(path, options=options, argument=name))
            )
            if progress is not None:
                progress(number, len(paths))
        stacked = np.stack(descriptors) if descriptors else np.zeros((0, 1), np.float32)
        info = matcher.info
        return cls(tuple(names), stacked, info.name, info.licence, info.sha256)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index, whole or not at all; beside the photographs is a good place.

        Raises:
            InputError: a place that cannot be written to.
        """
        target = Path(path)
        header = {
            "format": _FORMAT,
            "names": list(self.names),
            "model": self.model,
            "licence": self.licence,
            "sha256": self.sha256,
            "checksum": _checksum(self.names, self.descriptors),
        }
        try:
            with replaced(target) as temporary, temporary.open("wb") as stream:
                np.savez(stream, descriptors=self.descriptors, header=np.array(json.dumps(header)))
        except OSError as error:
            reason = " ".join(str(error.strerror or error).split())
            raise InputError("index", "a file that can be written", f"{target}: {reason}") from None

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], info: CheckpointInfo | None = None
    ) -> RetrievalIndex:
        """Read an index.

        Args:
            path: as :meth:`save` wrote it.
            info: of the model that will ask; ``None``: whichever.

        Raises:
            DatasetError: no such file, or one that is broken.
            InputError: the index of another model than ``info`` says.
        """
        source = Path(path)
        if not source.is_file():
            raise DatasetError(f"no retrieval index at {source}")
        try:
            # NumPy leaves a broken archive open that it opened itself.
            with source.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                descriptors, header = (stored[key] for key in _KEYS)
            values = json.loads(str(header))
            names = tuple(map(str, values["names"]))
            if values["format"] != _FORMAT or values["checksum"] != _checksum(names, descriptors):
                raise ValueError("its checksum is wrong")
            index = cls(names, descriptors, values["model"], values["licence"], values["sha256"])
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            raise DatasetError(f"{source}: a broken retrieval index ({reason})") from None
        if info is not None:
            index.check_model(info)
        return index

    def subset(self, names: Sequence[str]) -> RetrievalIndex:
        """The index of some of the photographs, in the order given."""
        rows = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), descriptors=self.descriptors[rows])

    def check_model(self, info: CheckpointInfo) -> None:
        """Descriptors of two models cannot be compared.

        Raises:
            InputError: other weights than those of the index.
        """
        if info.sha256 != self.sha256:
            raise InputError(
                "model",
                f"{self.model} ({self.sha256[:12]}), which made the retrieval index",
                f"{info.name} ({info.sha256[:12]})",
            )

    def query(self, descriptor: npt.ArrayLike, k: int) -> list[tuple[int, float]]:
        """The photographs most similar to a descriptor.

        Args:
            descriptor: (C,) of :func:`image_descriptor`, by the same model.
            k: how many.

        Returns:
            at most ``k`` of (number of the photograph, cosine), the most similar first.
        """
        vector = np.asarray(descriptor, dtype=np.float32)
        if vector.shape != self.descriptors.shape[1:]:
            raise InputError("descriptor", f"shape {self.descriptors.shape[1:]}", f"{vector.shape}")
        cosines, rows = self._search(vector[None], k)
        return [(int(row), float(cosine)) for row, cosine in zip(rows[0], cosines[0], strict=True)]

    def pairs(self, k: int) -> list[tuple[int, int]]:
        """Every photograph with the ``k`` most similar others: sorted indices ``i < j``, each once.

        Raises:
            InputError: fewer than one neighbour.
        """
        if k < 1:
            raise InputError("k", "at least 1", f"{k}")
        _, rows = self._search(self.descriptors, k + 1)
        found: set[tuple[int, int]] = set()
        for image, neighbours in enumerate(rows):
            # Copies of one photograph are equally similar: it need not be its own first.
            others = [int(row) for row in neighbours if row != image][:k]
            found.update((min(image, other), max(image, other)) for other in others)
        return sorted(found)

    def _search(
        self, vectors: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        if k < 1:
            raise InputError("k", "at least 1", f"{k}")
        index = faiss.IndexFlatIP(self.descriptors.shape[1])
        index.add(np.ascontiguousarray(self.descriptors))
        return index.search(np.ascontiguousarray(vectors), min(k, len(self)))


def image_descriptor(image: EncodedImage) -> npt.NDArray[np.float32]:
    """(C,) unit descriptor of a whole photograph, pooled from its encoding."""
    spread = image.encoded.tokens[0].float().std(dim=0, correction=0)
    descriptor: npt.NDArray[np.float32] = spread.cpu().numpy()
    length = float(np.linalg.norm(descriptor))
    return descriptor / length if length > 0 else descriptor


def _checksum(names: Sequence[str], descriptors: npt.NDArray[np.float32]) -> str:
    digest = hashlib.sha256(json.dumps(list(names)).encode())
    digest.update(np.ascontiguousarray(descriptors).tobytes())
    return digest.hexdigest()
