"""Many pairs through one network: each photograph encoded once, pairs of equal shapes together."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import torch

from matcher.crop_matching import MaskedPhotograph
from matcher.encoded_images import EncodedImage
from matcher.encoding_cache import EncodingCache, UnreadablePhotographError
from matcher.errors import InputError
from matcher.images import ImageSource, RgbArray
from matcher.model.network import EncodedViews
from matcher.pair_inference import PairAnswer, PairInference, why_hopeless
from matcher.structures import View
from matcher.view_matching import BothWays, PairOptions

__all__ = ["AnsweredPair", "FailedPair", "PairSource", "PairStream"]

PairSource: TypeAlias = ImageSource | EncodedImage

_log = logging.getLogger(__name__)

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
_WINDOW_BATCHES = 4
"""How many batches of pairs are looked through for pairs of equal shapes."""


@dataclass(frozen=True, slots=True)
class FailedPair:
    """A pair that could not be matched because of what it was asked with.

    Attributes:
        name0: of photograph 0, as ``Photographs`` names it.
        name1: of photograph 1.
        reason: one sentence.
    """

    name0: str
    name1: str
    reason: str


class _Side(Protocol):
    """One photograph of a pair, encoded."""

    @property
    def view(self) -> View: ...
    @property
    def value_range(self) -> tuple[int, int]: ...
    @property
    def shape_key(self) -> Hashable: ...
    def encoded(self) -> EncodedViews: ...
    def masked_photograph(self) -> MaskedPhotograph: ...


class _Given:
    """An encoding that the caller made, and keeps."""

    def __init__(self, image: EncodedImage) -> None:
        self._image = image
        self.view = image.view
        self.value_range = int(image.image.min()), int(image.image.max())
        self.shape_key = image.encoded.shape_key

    def encoded(self) -> EncodedViews:
        return self._image.encoded

    def masked_photograph(self) -> MaskedPhotograph:
        return MaskedPhotograph(self._image.image, self._image.mask)


class _Cached:
    """An encoding in the cache."""

    def __init__(self, cache: EncodingCache, key: Hashable, *, is_passing: bool) -> None:
        self._cache = cache
        self.key = key
        self.is_passing = is_passing
        seen = cache.seen(key)
        self.view, self.value_range = seen.view, seen.value_range
        self.shape_key, self.num_bytes = seen.shape_key, seen.encoded_bytes

    def encoded(self) -> EncodedViews:
        return self._cache.encoded(self.key)

    def masked_photograph(self) -> MaskedPhotograph:
        return MaskedPhotograph(self._cache.photograph(self.key))


@dataclass(slots=True, eq=False)
class AnsweredPair:
    """A pair on its way through the network; the stream gives it out answered.

    Attributes:
        answer: what was found, or ``None``: there is an error.
        error: why there is no answer.
        seconds: wall-clock time of reading, encoding and matching.
    """

    answer: PairAnswer | None = None
    error: InputError | None = None
    seconds: float = 0.0
    _sides: tuple[_Side, _Side] | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.answer is not None or self.error is not None

    @property
    def sides(self) -> tuple[_Side, _Side]:
        """Both photographs; only without an error."""
        assert self._sides is not None
        return self._sides

    @property
    def views(self) -> tuple[View, View]:
        """What the network saw of both photographs; only without an error."""
        return self.sides[0].view, self.sides[1].view

    def photographs(self) -> tuple[RgbArray, RgbArray]:
        """(H, W, 3) uint8 RGB of both, until the next pair is asked for.

        Raises:
            UnreadablePhotographError: a file is gone since it was encoded.
        """
        return self.sides[0].masked_photograph().image, self.sides[1].masked_photograph().image

    @property
    def shape_key(self) -> Hashable:
        """Pairs with equal keys go through the decoder together."""
        return self.sides[0].shape_key, self.sides[1].shape_key


class PairStream:
    """Answers pairs in the order they are asked, each photograph of a file encoded once.

    A few pairs ahead are looked through for some of the same shapes, which go through the decoder
    together. When memory runs out, the batch is halved, and stays so; then the cache gives way.

    Args:
        inference: the network.
        options: how pairs are matched.
        cache: where encodings are kept.
        batch_size: most pairs in the decoder at a time.
        keep_pointmaps: whether answers hold them.
    """

    def __init__(
        self,
        inference: PairInference,
        options: PairOptions,
        cache: EncodingCache,
        *,
        batch_size: int,
        keep_pointmaps: bool = True,
    ) -> None:
        if batch_size < 1:
            raise InputError("batch_size", "at least 1", f"{batch_size}")
        self.batch_size = batch_size
        self._inference = inference
        self._options = options
        self._cache = cache
        self._keep_pointmaps = keep_pointmaps
        self._window = _WINDOW_BATCHES * batch_size
        self._failed: dict[Hashable, InputError] = {}

    def answers(self, pairs: Iterable[tuple[PairSource, PairSource]]) -> Iterator[AnsweredPair]:
        """Every pair with its answer or its error; an error of ``pairs`` comes after those."""
        source = iter(pairs)
        waiting: deque[AnsweredPair] = deque()
        failure: Exception | None = None
        is_open = True
        try:
            while True:
                while is_open and len(waiting) < self._window and not self._is_batch_full(waiting):
                    try:
                        pair = next(source)
                    except StopIteration:
                        is_open = False
                    except Exception as error:
                        failure, is_open = error, False
                    else:
                        waiting.append(self._admit(pair))
                if not waiting:
                    break
                if not waiting[0].is_done:
                    self._answer(waiting)
                yield waiting[0]
                self._forget_passing(waiting.popleft())
        finally:
            for unanswered in waiting:
                self._forget_passing(unanswered)
        if failure is not None:
            raise failure

    def _is_batch_full(self, waiting: deque[AnsweredPair]) -> bool:
        """Whether there is enough to go on with: the first pair needs no more company."""
        if not waiting:
            return False
        return waiting[0].is_done or len(self._same_shape(waiting)) >= self.batch_size

    def _same_shape(self, waiting: deque[AnsweredPair]) -> list[AnsweredPair]:
        """The first pair and those that can go through the decoder with it."""
        shape = waiting[0].shape_key
        return [pair for pair in waiting if not pair.is_done and pair.shape_key == shape]

    def _admit(self, pair: tuple[PairSource, PairSource]) -> AnsweredPair:
        """Encode what was not encoded before, and answer where there is nothing to match."""
        started = time.perf_counter()
        admitted = AnsweredPair()
        try:
            sides = self._side(pair[0], "image0"), self._side(pair[1], "image1")
        except _NotEncoded as broken:
            admitted.error = broken.error
        else:
            admitted._sides = sides
            for side, argument in zip(sides, ("image0", "image1"), strict=True):
                reason = why_hopeless(side.view, side.value_range, argument)
                if reason is not None:
                    admitted.answer = PairAnswer.none(reason)
                    break
        admitted.seconds = time.perf_counter() - started
        return admitted

    def _side(self, image: PairSource, argument: str) -> _Side:
        if isinstance(image, EncodedImage):
            return _Given(image)
        source = Path(image).resolve() if isinstance(image, str | os.PathLike) else None
        # An array may hold another photograph the next time: only files are remembered.
        name = object() if source is None else _file_key(source)
        key = (name, self._options.max_size)
        if key in self._failed:
            failed = self._failed[key]
            raise _NotEncoded(InputError(argument, failed.expected, failed.actual))
        if key not in self._cache:
            try:
                encoded = self._encode(image, argument)
            except InputError as error:
                if source is not None:
                    self._failed[key] = error
                raise _NotEncoded(error) from None
            self._cache.put(key, encoded, source)
        return _Cached(self._cache, key, is_passing=source is None)

    def _encode(self, image: ImageSource, argument: str) -> EncodedImage:
        reason = ""
        for _ in range(2):
            try:
                return self._inference.encode(image, self._options, argument=argument)
            except (RuntimeError, MemoryError) as error:
                found = _out_of_memory(error)
                if found is None:
                    raise
                reason = found
            self._cache.give_way()
            self._give_back()
        raise InputError(argument, "a photograph that fits in memory", reason)

    def _answer(self, waiting: deque[AnsweredPair]) -> None:
        """Answer the first pair, and with it what fits into its batch."""
        is_last_try = False
        while True:
            batch = self._batch(waiting)
            reason = self._out_of_memory_in(batch)
            if reason is None:
                return
            if len(batch) > 1:
                self.batch_size = len(batch) // 2
                self._give_back()
                _log.warning("memory ran out; %d pairs at a time from now on", self.batch_size)
            elif not is_last_try:
                is_last_try = True
                self._cache.give_way()
                self._give_back()
            else:
                batch[0].error = InputError("pair", "photographs that fit in memory", reason)
                return

    def _batch(self, waiting: deque[AnsweredPair]) -> list[AnsweredPair]:
        """The first pair, and others as long as all their encodings fit under the cap."""
        sizes: dict[Hashable, int] = {}
        batch: list[AnsweredPair] = []
        for pair in self._same_shape(waiting)[: self.batch_size]:
            cached = [side for side in pair.sides if isinstance(side, _Cached)]
            more = sizes | {side.key: side.num_bytes for side in cached}
            if batch and sum(more.values()) > self._cache.batch_bytes:
                break
            sizes = more
            batch.append(pair)
        return batch

    def _out_of_memory_in(self, batch: list[AnsweredPair]) -> str | None:
        """Answer a batch; if memory ran out none is answered, and the reason returned."""
        started = time.perf_counter()
        try:
            predictions = self._inference.decode(
                [(one.encoded(), two.encoded()) for one, two in (pair.sides for pair in batch)],
                self._options,
                points=self._keep_pointmaps,
            )
            decoding = (time.perf_counter() - started) / len(batch)
            for pair, prediction in zip(batch, predictions, strict=True):
                started = time.perf_counter()
                self._match(pair, prediction)
                pair.seconds += decoding + time.perf_counter() - started
        except (RuntimeError, MemoryError) as error:
            reason = _out_of_memory(error)
            if reason is None:
                raise
            return reason
        return None

    def _match(self, pair: AnsweredPair, prediction: BothWays) -> None:
        one, two = pair.sides
        try:
            pair.answer = self._inference.answer(
                *pair.views,
                prediction,
                self._options,
                lambda: (one.masked_photograph(), two.masked_photograph()),
                keep_pointmaps=self._keep_pointmaps,
            )
        except UnreadablePhotographError as error:
            pair.error = error

    def _give_back(self) -> None:
        """What torch keeps for later on a GPU goes back to it in one piece."""
        if self._inference.device.type == "cuda":
            torch.cuda.empty_cache()

    def _forget_passing(self, pair: AnsweredPair) -> None:
        """What is no file is not asked for again."""
        for side in pair._sides or ():
            if isinstance(side, _Cached) and side.is_passing:
                self._cache.forget(side.key)


class _NotEncoded(Exception):
    """A photograph that cannot be used; every pair of it fails."""

    def __init__(self, error: InputError) -> None:
        super().__init__(str(error))
        self.error = error


def _file_key(path: Path) -> Hashable:
    """Another one when the file was written anew."""
    try:
        status = path.stat()
    except OSError:
        return str(path)
    return str(path), status.st_mtime_ns, status.st_size


def _out_of_memory(error: Exception) -> str | None:
    """The first line of an error that says that memory ran out, or ``None``: it is another."""
    text = str(error)
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(
        words in text.lower() for words in _OUT_OF_MEMORY
    ):
        return None
    return (text.splitlines() or ["memory ran out"])[0]
