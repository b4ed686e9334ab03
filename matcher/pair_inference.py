"""The steps from photographs to matches that need the network: encode, decode, match, turn."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matcher.checkpoints import CheckpointInfo
from matcher.crop_matching import MaskedPhotograph, match_crops
from matcher.encoded_images import EncodedImage
from matcher.errors import InputError
from matcher.images import (
    ImageSource,
    exif_focal,
    prepare_view,
    read_image,
)
from matcher.matching import (
    MatchingOptions,
)
from matcher.model.network import EncodedViews, TwoViewNetwork
from matcher.pointmaps import Pointmaps
from matcher.structures import ImageSize, Matches, View
from matcher.turns import QUARTER_TURNS, upright_matches, upright_pointmaps
from matcher.view_matching import (
    BothWays,
    PairOptions,
    ViewMatches,
    keep_best,
    match_views,
    pointmaps_of,
)

__all__ = ["PairAnswer", "PairInference", "multiplies_bfloat16", "why_hopeless"]

_BLANK_RANGE = 3
_TURN_TRIAL_SIZE = 256
_FIRST_CUDA_WITH_BFLOAT16 = (8, 0)


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """Two views, what the network says of them, and their matches."""

    view0: View
    view1: View
    prediction: BothWays
    found: ViewMatches


@dataclass(frozen=True, slots=True, eq=False)
class PairAnswer:
    """What was found of one pair.

    Attributes:
        matches: in original pixels.
        reason: ``None`` with matches; otherwise one sentence that says why there are none.
        overlap_score: probability that both photographs show a common place, or ``None``.
        pointmaps: of both, or ``None`` where the network was not asked or they are not wanted.
        quarter_turns1: by which photograph 1 was turned for the network, counter-clockwise;
            everything here is about the upright one.
    """

    matches: Matches
    reason: str | None
    overlap_score: float | None = None
    pointmaps: Pointmaps | None = None
    quarter_turns1: int = 0

    @classmethod
    def none(cls, reason: str) -> PairAnswer:
        """No match, because of ``reason``."""
        return cls(Matches.empty(), reason)


@dataclass(frozen=True, slots=True, eq=False)
class PairInference:
    """A network and what is known of its weights, applied to photographs and to pairs of them.

    Attributes:
        network: in evaluation mode.
        info: where its weights come from.
    """

    network: TwoViewNetwork
    info: CheckpointInfo

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def _confidence_is_probability(self) -> bool:
        return self.info.calibration is not None

    def encode(
        self,
        image: ImageSource,
        options: PairOptions,
        *,
        mask: npt.NDArray[np.bool_] | Tensor | None = None,
        argument: str = "image",
    ) -> EncodedImage:
        """Read and encode one photograph; see ``Matcher.encode``."""
        pixels = read_image(image, argument)
        if pixels.shape[:2] == (1, 1):
            raise InputError(argument, "a photograph", "an image of 1 x 1 pixels")
        size = ImageSize(*pixels.shape[:2])
        welcome = _as_mask(mask, size, argument.replace("image", "mask"))
        view = prepare_view(
            pixels,
            max_size=options.max_size,
            patch_size=self.network.config.patch_size,
            mask=welcome,
            name=argument,
        )
        view = dataclasses.replace(view, exif_focal=exif_focal(image))
        return EncodedImage(pixels, view, self._encode_views([view], options)[0], welcome)

    @torch.inference_mode()
    def decode(
        self,
        pairs: Sequence[tuple[EncodedViews, EncodedViews]],
        options: PairOptions,
        *,
        points: bool,
    ) -> list[BothWays]:
        """The predictions, and for symmetric matching those with the photographs swapped.

        ``points``: whether pointmaps are needed.
        """
        firsts, seconds = [one for one, _ in pairs], [two for _, two in pairs]
        with self._precision(options):
            forward = self.network.decode_each(firsts, seconds, points=points)
            if not options.matching.symmetric:
                return [BothWays(prediction) for prediction in forward]
            backward = self.network.decode_each(seconds, firsts, points=points)
        return [BothWays(*both) for both in zip(forward, backward, strict=True)]

    def answer(
        self,
        view0: View,
        view1: View,
        prediction: BothWays,
        options: PairOptions,
        photographs: Callable[[], tuple[MaskedPhotograph, MaskedPhotograph]],
        *,
        keep_pointmaps: bool = True,
    ) -> PairAnswer:
        """Match one pair that was decoded.

        Args:
            view0: what the network saw of photograph 0.
            view1: the same of photograph 1.
            prediction: of the network; with pointmaps if the answer shall hold them.
            options: how the pair is matched.
            photographs: gives both; called only if crops or turns are wanted.
            keep_pointmaps: whether the answer holds them.
        """
        # A trial of turns and the crops may both ask: a photograph is read but once.
        photographs = functools.cache(photographs)
        found = self._match_whole_views(view0, view1, prediction, options)
        whole = _Look(view0, view1, prediction, found)
        if options.turns == "auto" and found.is_worth_another_try:
            answer = self._answer_turned(
                whole, photographs(), options, keep_pointmaps=keep_pointmaps
            )
            if answer is not None:
                return answer
        return self._finish(whole, options, photographs, keep_pointmaps=keep_pointmaps)

    def _answer_turned(
        self,
        upright: _Look,
        photographs: tuple[MaskedPhotograph, MaskedPhotograph],
        options: PairOptions,
        *,
        keep_pointmaps: bool,
    ) -> PairAnswer | None:
        """The answer with photograph 1 turned; ``None`` if upright it is no worse."""
        source0, source1 = photographs
        quarter_turns = self._best_turn(source0, source1, options)
        if quarter_turns == 0:
            return None
        turned = source1.turned(quarter_turns)
        whole = self._match_whole(source0, [turned], options, points=keep_pointmaps)[0]
        if whole.found.expected_right <= upright.found.expected_right:
            return None
        answer = self._finish(
            whole, options, lambda: (source0, turned), keep_pointmaps=keep_pointmaps
        )
        return _upright(answer, upright.view1, quarter_turns)

    def _best_turn(
        self, source0: MaskedPhotograph, source1: MaskedPhotograph, options: PairOptions
    ) -> int:
        """The quarter turns of photograph 1 with the most right matches in small views."""
        small = dataclasses.replace(options, max_size=min(options.max_size, _TURN_TRIAL_SIZE))
        turned = [source1.turned(quarter_turns) for quarter_turns in QUARTER_TURNS]
        trials = self._match_whole(source0, turned, small, points=False)
        return int(np.argmax([trial.found.expected_right for trial in trials]))

    def _match_whole(
        self,
        source0: MaskedPhotograph,
        sources1: Sequence[MaskedPhotograph],
        options: PairOptions,
        *,
        points: bool,
    ) -> list[_Look]:
        """One photograph against several."""
        view0, *views1 = (
            prepare_view(
                source.image,
                max_size=options.max_size,
                patch_size=self.network.config.patch_size,
                mask=source.mask,
            )
            for source in (source0, *sources1)
        )
        views0 = [view0] * len(views1)
        return self._look(views0, views1, options, self._match_whole_views, points=points)

    def _finish(
        self,
        whole: _Look,
        options: PairOptions,
        photographs: Callable[[], tuple[MaskedPhotograph, MaskedPhotograph]],
        *,
        keep_pointmaps: bool,
    ) -> PairAnswer:
        """Crops if they are wanted, the choice among the matches, the pointmaps."""
        view0, view1, matches = whole.view0, whole.view1, whole.found.matches
        if options.crops != "never":
            matches = match_crops(
                photographs,
                view0.original_size,
                view1.original_size,
                whole.found,
                options,
                self._match_view_pairs,
                patch_size=self.network.config.patch_size,
                is_probability=self._confidence_is_probability,
            )
        is_probability = self._confidence_is_probability
        kept = keep_best(
            matches, view0.original_size, options.matching, is_probability=is_probability
        )
        return PairAnswer(
            kept,
            None if len(kept) else _why_none(len(matches), options.matching, is_probability),
            whole.found.overlap_score,
            pointmaps_of(view0, view1, whole.prediction) if keep_pointmaps else None,
        )

    def _match_whole_views(
        self, view0: View, view1: View, prediction: BothWays, options: PairOptions
    ) -> ViewMatches:
        """Matches of whole photographs; where few are right, those of the exact search.

        Whether another try is worth it is decided by these, and a sample finds too little there.
        """
        found = self._match_views(view0, view1, prediction, options)
        is_sampled = self.device.type == "cpu" and options.matching.backend == "auto"
        is_calibrated = found.overlap_score is not None
        if not (is_sampled and is_calibrated and found.has_few_right):
            return found
        exact = dataclasses.replace(options.matching, backend="exact")
        return self._match_views(
            view0, view1, prediction, dataclasses.replace(options, matching=exact)
        )

    @torch.inference_mode()
    def _match_views(
        self, view0: View, view1: View, prediction: BothWays, options: PairOptions
    ) -> ViewMatches:
        return match_views(view0, view1, prediction, options, self.info.calibration)

    def _match_view_pairs(
        self, views0: list[View], views1: list[View], options: PairOptions
    ) -> list[ViewMatches]:
        """Row i with row i."""
        looks = self._look(views0, views1, options, self._match_views, points=False)
        return [look.found for look in looks]

    def _look(
        self,
        views0: Sequence[View],
        views1: Sequence[View],
        options: PairOptions,
        match: Callable[[View, View, BothWays, PairOptions], ViewMatches],
        *,
        points: bool,
    ) -> list[_Look]:
        """Row i with row i; a view of several rows is encoded once."""
        views = {id(view): view for view in (*views0, *views1)}
        encoded = dict(zip(views, self._encode_views(list(views.values()), options), strict=True))
        rows = [
            (encoded[id(one)], encoded[id(two)]) for one, two in zip(views0, views1, strict=True)
        ]
        predictions = self.decode(rows, options, points=points)
        return [
            _Look(view0, view1, both, match(view0, view1, both, options))
            for view0, view1, both in zip(views0, views1, predictions, strict=True)
        ]

    @torch.inference_mode()
    def _encode_views(self, views: list[View], options: PairOptions) -> list[EncodedViews]:
        with self._precision(options):
            encoded = self.network.encode_each([view.pixels.to(self.device) for view in views])
        # What is kept may be decoded in either precision.
        return [views.float() for views in encoded]

    def _precision(self, options: PairOptions) -> AbstractContextManager[None]:
        enabled = options.precision == "bfloat16"
        if options.precision == "auto":
            enabled = multiplies_bfloat16(self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


@functools.cache
def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are faster than those of float32 there."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _FIRST_CUDA_WITH_BFLOAT16
    # Not there before torch 2.6.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and has_amx is not None and bool(has_amx())


def _upright(answer: PairAnswer, view1: View, quarter_turns: int) -> PairAnswer:
    maps = answer.pointmaps
    if maps is not None:
        maps = upright_pointmaps(maps, view1.original_from_network, quarter_turns)
    return dataclasses.replace(
        answer,
        matches=upright_matches(answer.matches, view1.original_size, quarter_turns),
        pointmaps=maps,
        quarter_turns1=quarter_turns,
    )


def why_hopeless(view: View, value_range: tuple[int, int], argument: str) -> str | None:
    """Why a photograph holds no answer: it has no contrast, or its mask leaves nothing to match.

    Args:
        view: what the network saw of it.
        value_range: the lowest and the highest value of the photograph.
        argument: what to call it.
    """
    low, high = value_range
    if high - low < _BLANK_RANGE:
        return f"{argument} is blank: all its values lie between {low} and {high}"
    if not bool(view.matchable().any()):
        return f"the mask of {argument} leaves nothing to match"
    return None


def _why_none(found: int, options: MatchingOptions, is_probability: bool) -> str:
    if not found:
        return "no two places of the photographs agreed on each other"
    least = options.least_confidence(is_probability=is_probability)
    return f"none of {found} possible matches had a confidence of at least {least:g}"


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
