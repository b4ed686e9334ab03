"""From two photographs to their matches and relative pose: the one crossing of all parts.

The network and the matching run in torch on the model's device; geometry is numpy float64.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matcher.checkpoints import CheckpointInfo, load_checkpoint
from matcher.crop_matching import MaskedPhotograph
from matcher.encoded_images import EncodedImage
from matcher.encoding_cache import EncodingCache, MemoryLimits
from matcher.errors import InputError
from matcher.images import ImageSource, RgbArray
from matcher.many_pairs import FailedPair, PairSource, PairStream
from matcher.model.network import TwoViewNetwork
from matcher.pair_inference import PairAnswer, PairInference, why_hopeless
from matcher.pair_records import PairRecord
from matcher.photographs import Photographs
from matcher.results import PairResult
from matcher.structures import View
from matcher.view_matching import PairOptions

__all__ = ["EncodedImage", "Matcher", "PairOptions"]


class Matcher:
    """Matches photographs with one network.

    Args:
        network: the network; it is put into evaluation mode.
        info: where its weights come from.
        options: how pairs are matched, unless a call says otherwise.
    """

    def __init__(
        self, network: TwoViewNetwork, info: CheckpointInfo, options: PairOptions | None = None
    ) -> None:
        self.network = network.eval()
        self.info = info
        self.options = options or PairOptions()
        self._inference = PairInference(self.network, info)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "small",
        *,
        device: str | torch.device | None = None,
        options: PairOptions | None = None,
    ) -> Matcher:
        """Load a model.

        Args:
            name_or_path: ``"small"`` (bundled), a checkpoint file or folder, or the name of a
                released DUSt3R or MASt3R model (downloaded; its licence is logged).
            device: ``None`` takes a GPU if there is one.
            options: how pairs are matched, unless a call says otherwise.

        Raises:
            InputError: an unknown name, or a device that is not here.
            CheckpointError: a file that cannot be read or does not fit.
        """
        chosen = _choose_device(device)
        loaded = load_checkpoint(name_or_path, chosen)
        # Convolutions on a CPU run a fifth faster when channels lie together.
        loaded.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(loaded.network, loaded.info, options)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._inference.device

    def encode(
        self,
        image: ImageSource | EncodedImage,
        *,
        mask: npt.NDArray[np.bool_] | Tensor | None = None,
        options: PairOptions | None = None,
        argument: str = "image",
    ) -> EncodedImage:
        """Read and encode one photograph.

        Args:
            image: a path, PIL image, numpy (H, W, 3) uint8 or torch (3, H, W); see ``read_image``.
            mask: (H, W) bool over the upright photograph, where matches are welcome.
            options: instead of the matcher's own.
            argument: name of the argument, for error messages.

        Raises:
            InputError: an image that cannot be read or has but one pixel, a mask of another shape,
                or one beside an image that is encoded already.
        """
        if not isinstance(image, EncodedImage):
            return self._inference.encode(
                image, options or self.options, mask=mask, argument=argument
            )
        if mask is not None:
            raise InputError(
                argument.replace("image", "mask"),
                "None beside an encoded image (encode takes it)",
                "a mask",
            )
        return image

    def match(
        self,
        image0: ImageSource | EncodedImage,
        image1: ImageSource | EncodedImage,
        *,
        mask0: npt.NDArray[np.bool_] | Tensor | None = None,
        mask1: npt.NDArray[np.bool_] | Tensor | None = None,
        options: PairOptions | None = None,
        keep_pointmaps: bool = True,
    ) -> PairResult:
        """Find what two photographs have in common.

        Args:
            image0: the first photograph, or what ``encode`` made of it.
            image1: the second one.
            mask0: (H, W) bool, where matches are welcome in image 0.
            mask1: the same in image 1.
            options: instead of the matcher's own.
            keep_pointmaps: whether the result holds them: focal lengths and metric scale are read
                off them, and their depth settles poses from matches on one plane. A network whose
                pointmaps have a trunk of their own is faster without.

        Returns:
            Matches in the pixels of the photographs as given; none, with a reason, if there are
            none.

        Raises:
            InputError: an image or a mask that cannot be used.
        """
        started = time.perf_counter()
        options = options or self.options
        encoded0 = self.encode(image0, mask=mask0, options=options, argument="image0")
        encoded1 = self.encode(image1, mask=mask1, options=options, argument="image1")
        answer = self._match_encoded(encoded0, encoded1, options, keep_pointmaps=keep_pointmaps)
        seconds = time.perf_counter() - started
        photographs = encoded0.image, encoded1.image
        return self._result(answer, photographs, (encoded0.view, encoded1.view), seconds)

    def _match_encoded(
        self,
        image0: EncodedImage,
        image1: EncodedImage,
        options: PairOptions,
        *,
        keep_pointmaps: bool,
    ) -> PairAnswer:
        for image, argument in ((image0, "image0"), (image1, "image1")):
            value_range = int(image.image.min()), int(image.image.max())
            reason = why_hopeless(image.view, value_range, argument)
            if reason is not None:
                return PairAnswer.none(reason)
        both = [(image0.encoded, image1.encoded)]
        return self._inference.answer(
            image0.view,
            image1.view,
            self._inference.decode(both, options, points=keep_pointmaps)[0],
            options,
            lambda: (
                MaskedPhotograph(image0.image, image0.mask),
                MaskedPhotograph(image1.image, image1.mask),
            ),
            keep_pointmaps=keep_pointmaps,
        )

    def _result(
        self,
        answer: PairAnswer,
        photographs: tuple[RgbArray, RgbArray],
        views: tuple[View, View],
        seconds: float,
    ) -> PairResult:
        return PairResult(
            matches=answer.matches,
            image0=photographs[0],
            image1=photographs[1],
            info=self.info,
            pointmaps=answer.pointmaps,
            reason=answer.reason,
            seconds=seconds,
            overlap_score=answer.overlap_score,
            exif_focals=(views[0].exif_focal, views[1].exif_focal),
            quarter_turns1=answer.quarter_turns1,
        )

    def match_pairs(
        self,
        pairs: Iterable[tuple[PairSource, PairSource]],
        *,
        options: PairOptions | None = None,
        batch_size: int = 4,
        memory: MemoryLimits | EncodingCache | None = None,
        keep_pointmaps: bool = True,
    ) -> Iterator[PairResult]:
        """Match many pairs; every photograph given by path is encoded once, whatever their order.

        Args:
            pairs: photographs, two by two. Arrays and PIL images are encoded each time they
                appear: give paths, or what ``encode`` made of them.
            options: instead of the matcher's own.
            batch_size: most pairs that go through the decoder together (those of equal shapes
                do); it is halved when memory runs out.
            memory: how much may be kept, or a cache that calls of this matcher share.
            keep_pointmaps: whether results hold them; see ``match``.

        Returns:
            an iterator over the results, in the order of the pairs.

        Raises:
            InputError: a size below its least; as ``match``, when the pair's turn comes; no room
                on the disk for what memory cannot hold.
        """
        cache = self._cache(memory)
        stream = self._stream(options, cache, batch_size, keep_pointmaps=keep_pointmaps)
        return self._results(stream, pairs, _closing(cache, memory))

    def _stream(
        self,
        options: PairOptions | None,
        cache: EncodingCache,
        batch_size: int,
        *,
        keep_pointmaps: bool,
    ) -> PairStream:
        return PairStream(
            self._inference,
            options or self.options,
            cache,
            batch_size=batch_size,
            keep_pointmaps=keep_pointmaps,
        )

    def _results(
        self,
        stream: PairStream,
        pairs: Iterable[tuple[PairSource, PairSource]],
        cache: AbstractContextManager[EncodingCache],
    ) -> Iterator[PairResult]:
        with cache:
            for pair in stream.answers(pairs):
                if pair.answer is None:
                    assert pair.error is not None
                    raise pair.error
                yield self._result(pair.answer, pair.photographs(), pair.views, pair.seconds)

    def match_records(
        self,
        photographs: Photographs,
        pairs: Iterable[tuple[str, str]],
        *,
        options: PairOptions | None = None,
        batch_size: int = 4,
        memory: MemoryLimits | EncodingCache | None = None,
        keep_pointmaps: bool = True,
    ) -> Iterator[PairRecord | FailedPair]:
        """Match many pairs of a collection, without holding on to the photographs.

        As ``match_pairs``, but a photograph that cannot be read ends nothing: its pairs come as
        ``FailedPair``, with the reason.

        Args:
            photographs: what the names stand for.
            pairs: names, two by two.
            options: instead of the matcher's own.
            batch_size: most pairs that go through the decoder together.
            memory: how much may be kept, or a cache that calls of this matcher share.
            keep_pointmaps: whether records hold them.

        Raises:
            InputError: a name that is not among the photographs, a photograph paired with itself,
                when the pair's turn comes; no room on the disk for what memory cannot hold.
        """
        cache = self._cache(memory)
        stream = self._stream(options, cache, batch_size, keep_pointmaps=keep_pointmaps)
        return self._records(stream, photographs, pairs, _closing(cache, memory))

    def _records(
        self,
        stream: PairStream,
        photographs: Photographs,
        pairs: Iterable[tuple[str, str]],
        cache: AbstractContextManager[EncodingCache],
    ) -> Iterator[PairRecord | FailedPair]:
        asked: deque[tuple[str, str]] = deque()

        def paths() -> Iterator[tuple[Path, Path]]:
            for name0, name1 in pairs:
                if name0 == name1:
                    raise InputError("pairs", "two photographs each", f"{name0} twice")
                both = photographs.path(name0), photographs.path(name1)
                asked.append((name0, name1))
                yield both

        with cache:
            for pair in stream.answers(paths()):
                names = asked.popleft()
                if pair.answer is None:
                    yield FailedPair(*names, str(pair.error))
                    continue
                answer, (view0, view1) = pair.answer, pair.views
                yield PairRecord(
                    *names,
                    answer.matches,
                    view0.original_size,
                    view1.original_size,
                    answer.overlap_score,
                    answer.reason,
                    answer.pointmaps,
                )

    def _cache(self, memory: MemoryLimits | EncodingCache | None) -> EncodingCache:
        return memory if isinstance(memory, EncodingCache) else EncodingCache(memory, self.device)


def _closing(
    cache: EncodingCache, memory: MemoryLimits | EncodingCache | None
) -> AbstractContextManager[EncodingCache]:
    """Closes the cache when all is answered, unless it is the caller's."""
    return nullcontext(cache) if cache is memory else cache


def _choose_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # the meta device has no values to give
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError("device", "a device of this machine", str(error).splitlines()[0]) from None
    return chosen
