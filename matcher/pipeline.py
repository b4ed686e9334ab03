"""From two photographs to their matches and relative pose: the one crossing of all parts.

The network and the matching run in torch on the model's device; geometry is numpy float64.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matcher.checkpoints import CheckpointInfo, load_checkpoint
from matcher.errors import InputError
from matcher.images import ImageSource, RgbArray, crop_view, prepare_view, read_image
from matcher.matching import CropBox, CropPair, add_matches, merge_matches, plan_crops
from matcher.model.network import EncodedViews, TwoViewNetwork
from matcher.results import PairResult
from matcher.structures import ImageSize, Matches, View
from matcher.view_matching import (
    BothWays,
    PairOptions,
    ViewMatches,
    keep_best,
    match_views,
    pointmaps_of,
)

__all__ = ["EncodedImage", "Matcher", "PairOptions"]

_BLANK_RANGE = 3
_LARGER_THAN_VIEW = 1.25
_CROPS_AT_ONCE = 4


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A photograph that the encoder has seen; give it to ``Matcher.match`` as often as you like.

    Attributes:
        image: (H, W, 3) uint8 RGB, the photograph, upright.
        view: what the network saw of it.
        encoded: the encoder's output.
        mask: (H, W) bool in original pixels, where matches are welcome, or ``None``.
    """

    image: RgbArray
    view: View
    encoded: EncodedViews
    mask: npt.NDArray[np.bool_] | None = None

    @property
    def size(self) -> ImageSize:
        """Size of the photograph."""
        return self.view.original_size


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
        return next(self.network.parameters()).device

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
        mask_argument = argument.replace("image", "mask")
        if isinstance(image, EncodedImage):
            if mask is not None:
                raise InputError(
                    mask_argument, "None beside an encoded image (encode takes it)", "a mask"
                )
            return image
        options = options or self.options
        pixels = read_image(image, argument)
        if pixels.shape[:2] == (1, 1):
            raise InputError(argument, "a photograph", "an image of 1 x 1 pixels")
        welcome = _as_mask(mask, ImageSize(*pixels.shape[:2]), mask_argument)
        view = prepare_view(
            pixels,
            max_size=options.max_size,
            patch_size=self.network.config.patch_size,
            mask=welcome,
            name=argument,
        )
        return EncodedImage(pixels, view, self._encode_views([view])[0], welcome)

    def match(
        self,
        image0: ImageSource | EncodedImage,
        image1: ImageSource | EncodedImage,
        *,
        mask0: npt.NDArray[np.bool_] | Tensor | None = None,
        mask1: npt.NDArray[np.bool_] | Tensor | None = None,
        options: PairOptions | None = None,
    ) -> PairResult:
        """Find what two photographs have in common.

        Args:
            image0: the first photograph, or what ``encode`` made of it.
            image1: the second one.
            mask0: (H, W) bool, where matches are welcome in image 0.
            mask1: the same in image 1.
            options: instead of the matcher's own.

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
        return next(self._match_encoded([(encoded0, encoded1)], options, started))

    def match_pairs(
        self,
        pairs: Iterable[tuple[ImageSource, ImageSource]],
        *,
        options: PairOptions | None = None,
        batch_size: int = 4,
        cache_size: int = 64,
    ) -> Iterator[PairResult]:
        """Match many pairs; every photograph given by path is encoded once while it is remembered.

        Args:
            pairs: photographs, two by two.
            options: instead of the matcher's own.
            batch_size: pairs that go through the decoder together (those of equal shapes do).
            cache_size: how many encoded photographs to remember, the least recently used going
                first.

        Returns:
            an iterator over the results, in the order of the pairs.

        Raises:
            InputError: a size below its least; as ``match``, when the pair's turn comes.
        """
        if batch_size < 1:
            raise InputError("batch_size", "at least 1", f"{batch_size}")
        if cache_size < 2:
            raise InputError("cache_size", "at least 2", f"{cache_size}")
        return self._match_batches(pairs, options or self.options, batch_size, cache_size)

    def _match_batches(
        self,
        pairs: Iterable[tuple[ImageSource, ImageSource]],
        options: PairOptions,
        batch_size: int,
        cache_size: int,
    ) -> Iterator[PairResult]:
        remembered: OrderedDict[str, EncodedImage] = OrderedDict()

        def encode(image: ImageSource, argument: str) -> EncodedImage:
            key = str(image) if isinstance(image, str | Path) else None
            if key is None:
                return self.encode(image, options=options, argument=argument)
            if key not in remembered:
                remembered[key] = self.encode(image, options=options, argument=argument)
            remembered.move_to_end(key)
            while len(remembered) > cache_size:
                remembered.popitem(last=False)
            return remembered[key]

        waiting = iter(pairs)
        while True:
            started = time.perf_counter()
            encoded: list[tuple[EncodedImage, EncodedImage]] = []
            failure: InputError | None = None
            try:
                for image0, image1 in itertools.islice(waiting, batch_size):
                    encoded.append((encode(image0, "image0"), encode(image1, "image1")))
            except InputError as error:
                failure = error  # what came before it in the batch is answered first
            yield from self._match_encoded(encoded, options, started)
            if failure is not None:
                raise failure
            if len(encoded) < batch_size:
                return

    def _match_encoded(
        self,
        pairs: Sequence[tuple[EncodedImage, EncodedImage]],
        options: PairOptions,
        started: float,
    ) -> Iterator[PairResult]:
        """Decode all pairs together, then match one after the other."""
        reasons = [
            _why_hopeless(one, "image0") or _why_hopeless(two, "image1") for one, two in pairs
        ]
        hopeful = [pair for pair, reason in zip(pairs, reasons, strict=True) if reason is None]
        predictions = iter(
            self._decode([(one.encoded, two.encoded) for one, two in hopeful], options)
        )
        for (encoded0, encoded1), found_reason in zip(pairs, reasons, strict=True):
            reason, matches, pointmaps, overlap = found_reason, Matches.empty(), None, None
            if reason is None:
                prediction = next(predictions)
                found = self._match_views(encoded0.view, encoded1.view, prediction, options)
                matches, overlap = found.matches, found.overlap_score
                pointmaps = pointmaps_of(encoded0.view, encoded1.view, prediction)
                if _wants_crops(encoded0, encoded1, options):
                    matches = self._match_crops(encoded0, encoded1, matches, options)
                matches = keep_best(matches, encoded0.size, options.matching)
                if not len(matches):
                    reason = "no two places of the photographs agreed on each other"
            yield PairResult(
                matches=matches,
                image0=encoded0.image,
                image1=encoded1.image,
                info=self.info,
                pointmaps=pointmaps,
                reason=reason,
                seconds=(time.perf_counter() - started) / len(pairs),
                overlap_score=overlap,
            )

    @torch.inference_mode()
    def _encode_views(self, views: list[View]) -> list[EncodedViews]:
        return self.network.encode_each([view.pixels.to(self.device) for view in views])

    @torch.inference_mode()
    def _decode(
        self, pairs: Sequence[tuple[EncodedViews, EncodedViews]], options: PairOptions
    ) -> list[BothWays]:
        """The predictions, and for symmetric matching those with the photographs swapped."""
        firsts, seconds = [one for one, _ in pairs], [two for _, two in pairs]
        forward = self.network.decode_each(firsts, seconds)
        if not options.matching.symmetric:
            return [BothWays(prediction) for prediction in forward]
        backward = self.network.decode_each(seconds, firsts)
        return [BothWays(*both) for both in zip(forward, backward, strict=True)]

    @torch.inference_mode()
    def _match_views(
        self, view0: View, view1: View, prediction: BothWays, options: PairOptions
    ) -> ViewMatches:
        return match_views(view0, view1, prediction, options, self.info.calibration)

    def _match_crops(
        self, encoded0: EncodedImage, encoded1: EncodedImage, coarse: Matches, options: PairOptions
    ) -> Matches:
        """Match again where the coarse matches are, at the photographs' own resolution."""
        side = options.max_size
        crop_size = ImageSize(side * 3 // 4, side)
        plan = plan_crops(
            encoded0.size,
            encoded1.size,
            coarse.keypoints0.numpy(),
            coarse.keypoints1.numpy(),
            _crop_size(encoded0.size, crop_size),
            _crop_size(encoded1.size, crop_size),
            max_crops=options.max_crops,
        )
        if not plan:
            return coarse
        fine = []
        for start in range(0, len(plan), _CROPS_AT_ONCE):
            fine += self._match_crop_pairs(
                encoded0, encoded1, plan[start : start + _CROPS_AT_ONCE], options
            )
        # Crops are finer but see less around: where they lose the place, coarse matches stay.
        return add_matches(merge_matches(fine, cell_px=2.0), coarse, cell_px=8.0)

    def _match_crop_pairs(
        self,
        encoded0: EncodedImage,
        encoded1: EncodedImage,
        plan: Sequence[CropPair],
        options: PairOptions,
    ) -> list[Matches]:
        views0 = [self._crop(encoded0, pair.box0, options) for pair in plan]
        views1 = [self._crop(encoded1, pair.box1, options) for pair in plan]
        encoded = self._encode_views(views0 + views1)
        halves = zip(encoded[: len(plan)], encoded[len(plan) :], strict=True)
        predictions = self._decode(list(halves), options)
        return [
            self._match_views(view0, view1, prediction, options).matches
            for view0, view1, prediction in zip(views0, views1, predictions, strict=True)
        ]

    def _crop(self, encoded: EncodedImage, box: CropBox, options: PairOptions) -> View:
        return crop_view(
            encoded.image,
            (box.left, box.top, box.right, box.bottom),
            max_size=options.max_size,
            patch_size=self.network.config.patch_size,
            mask=encoded.mask,
            name=encoded.view.name,
        )


def _choose_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # the meta device has no values to give
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError("device", "a device of this machine", str(error).splitlines()[0]) from None
    return chosen


def _as_mask(
    mask: npt.NDArray[np.bool_] | Tensor | None, size: ImageSize, argument: str
) -> npt.NDArray[np.bool_] | None:
    if mask is None:
        return None
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if array.shape != (size.height, size.width) or array.dtype != np.bool_:
        raise InputError(
            argument,
            f"bool of shape ({size.height}, {size.width}), as the upright image",
            f"{array.dtype} of shape {array.shape}",
        )
    return array


def _why_hopeless(encoded: EncodedImage, argument: str) -> str | None:
    """A photograph without any contrast, or with nothing left to match, holds no answer."""
    low, high = int(encoded.image.min()), int(encoded.image.max())
    if high - low < _BLANK_RANGE:
        return f"{argument} is blank: all its values lie between {low} and {high}"
    if not bool(encoded.view.matchable().any()):
        return f"the mask of {argument} leaves nothing to match"
    return None


def _wants_crops(encoded0: EncodedImage, encoded1: EncodedImage, options: PairOptions) -> bool:
    if options.crops != "auto":
        return options.crops == "always"
    sizes = (encoded0.size, encoded1.size)
    longest = max(max(size.height, size.width) for size in sizes)
    return longest > _LARGER_THAN_VIEW * options.max_size


def _crop_size(size: ImageSize, landscape: ImageSize) -> ImageSize:
    if size.width >= size.height:
        return landscape
    return ImageSize(landscape.width, landscape.height)
