"""From a query photograph to its place in a map: retrieval, matching, one pose problem."""

from __future__ import annotations

import statistics
import weakref
from collections.abc import Sequence
from types import TracebackType

import numpy as np

from matcher.encoding_cache import EncodingCache, MemoryLimits
from matcher.errors import InputError
from matcher.images import ImageSource
from matcher.localization.answer import AbsolutePose, UsedReference
from matcher.localization.correspondences import Correspondences, gather
from matcher.localization.lifting import Lifted, MatchArrays
from matcher.localization.options import LocalizationOptions
from matcher.localization.references import Reference
from matcher.localization.retrieval import RetrievalIndex, image_descriptor
from matcher.localization.solve import solve_pose
from matcher.pipeline import EncodedImage, Matcher
from matcher.results import PairResult
from matcher.structures import Camera, ImageSize

__all__ = ["Localizer"]


class Localizer:
    """Localizes queries one after the other; every reference is encoded once.

    Close it afterwards, or use it as a context manager: encodings that memory cannot hold lie in
    temporary files.

    Args:
        matcher: finds what a query and a reference have in common.
        references: of the map.
        retrieval: index of the references, in their order; ``None``: it is built when a query
            cannot be matched with all of them.
        is_metric: whether the map is in metres.
        options: references, threshold, seed.
        memory: how much encoded references may take.

    Raises:
        InputError: the retrieval index was made by another model.
    """

    def __init__(
        self,
        matcher: Matcher,
        references: Sequence[Reference],
        retrieval: RetrievalIndex | None = None,
        *,
        is_metric: bool = False,
        options: LocalizationOptions | None = None,
        memory: MemoryLimits | None = None,
    ) -> None:
        if retrieval is not None:
            retrieval.check_model(matcher.info)
        self.matcher = matcher
        self.options = options or LocalizationOptions()
        self._pair = self.options.pair or matcher.options
        self._references = tuple(references)
        self._retrieval = retrieval
        self._is_metric = is_metric
        self._cache = EncodingCache(memory, matcher.device)
        weakref.finalize(self, self._cache.close)  # whoever forgets to close it leaves no files

    def __enter__(self) -> Localizer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def num_encoded(self) -> int:
        """How many references were encoded to be matched."""
        return self._cache.num_encoded

    def close(self) -> None:
        """Forget the encodings, and remove their files."""
        self._cache.close()

    def localize(self, query: ImageSource, camera: Camera | None = None) -> AbsolutePose:
        """Where a photograph was taken; see ``ReferenceMap.localize``.

        Raises:
            InputError: a photograph that cannot be read, a camera for another size than it has.
        """
        encoded = self.matcher.encode(query, options=self._pair, argument="query")
        camera = _camera_for(camera, encoded.size)
        chosen = self._choose(encoded)
        if chosen[0].points is None:
            return self._relative(encoded, camera, chosen[0])
        pairs = [(encoded, reference.path) for reference in chosen]
        results = list(self.matcher.match_pairs(pairs, options=self._pair, memory=self._cache))
        lifted = [
            _lift(reference, result) for reference, result in zip(chosen, results, strict=True)
        ]
        used = [
            UsedReference(reference.name, len(result))
            for reference, result in zip(chosen, results, strict=True)
        ]
        correspondences = gather(lifted)
        if not any(len(result) for result in results):
            return AbsolutePose.none(_why_no_match(results[0], "image0"), used, correspondences)
        return solve_pose(
            correspondences,
            used,
            camera,
            encoded.size,
            self.options,
            is_metric=self._is_metric,
            focal_guess=_own_focal(results) if camera is None else None,
        )

    def _choose(self, query: EncodedImage) -> list[Reference]:
        """The references that resemble the query most."""
        count = self.options.num_references
        if len(self._references) <= count:
            return list(self._references)
        if self._retrieval is None:
            self._retrieval = RetrievalIndex.of_files(
                self.matcher,
                [reference.name for reference in self._references],
                [reference.path for reference in self._references],
                options=self._pair,
            )
        nearest = self._retrieval.query(image_descriptor(query), count)
        return [self._references[number] for number, _ in nearest]

    def _relative(
        self, query: EncodedImage, camera: Camera | None, reference: Reference
    ) -> AbsolutePose:
        """The pose against a single photograph, from the matches alone."""
        pairs = [(reference.path, query)]
        (result,) = self.matcher.match_pairs(pairs, options=self._pair, memory=self._cache)
        pose = result.relative_pose(reference.camera, camera)
        found = Correspondences(
            result.keypoints1.numpy().astype(np.float64),
            np.full((len(result), 3), np.nan),
            result.confidence.numpy().astype(np.float64),
            np.zeros(len(result), np.int64),
            result.keypoints0.numpy().astype(np.float64),
        )
        used = UsedReference(reference.name, len(result), pose.num_inliers)
        if pose.cam1_from_cam0 is None:
            reason = _why_no_match(result, "image1") if not len(result) else pose.reason
            return AbsolutePose.none(reason or "no pose", [used], found)
        return AbsolutePose(
            pose.cam1_from_cam0 @ reference.cam_from_world,
            (used,),
            found,
            pose.inlier_mask,
            pose.camera1,
            is_metric=pose.is_metric,
            method="relative",
        )


def _lift(reference: Reference, result: PairResult) -> Lifted:
    assert reference.points is not None
    return reference.points.lift(
        MatchArrays(
            result.keypoints0.numpy().astype(np.float64),
            result.keypoints1.numpy().astype(np.float64),
            result.confidence.numpy().astype(np.float64),
        )
    )


def _camera_for(camera: Camera | None, size: ImageSize) -> Camera | None:
    if camera is None:
        return None
    if camera.size not in (None, size):
        raise InputError(
            "camera",
            f"one for the {size.width} x {size.height} pixels of the query",
            f"{camera.size.width} x {camera.size.height}" if camera.size else "",
        )
    return Camera(camera.model, camera.params, size)


def _why_no_match(result: PairResult, query: str) -> str:
    """The reason of a pair without matches, in which the query is called ``query``."""
    reason = result.reason or "no two places agreed on each other"
    if query in reason:
        return reason.replace(query, "the query")
    return f"the query matches no reference: {reason}"


def _own_focal(results: Sequence[PairResult]) -> float | None:
    """The query's focal as its own pointmaps have it, pixels."""
    maps = [result.pointmaps for result in results if result.pointmaps is not None]
    focals = [focal for focal in (pointmaps.focal0() for pointmaps in maps) if focal is not None]
    return statistics.median(focals) if focals else None
