"""The map to localize in: photographs whose place is known, and what they know about the world."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from matcher.errors import InputError
from matcher.images import ImageSource, RgbArray
from matcher.localization import map_files, sources
from matcher.localization.answer import AbsolutePose
from matcher.localization.localizer import Localizer
from matcher.localization.options import LocalizationOptions
from matcher.localization.picture import draw_localization
from matcher.localization.references import Reference, common_root, photograph_size, summary
from matcher.localization.retrieval import RetrievalIndex
from matcher.localization.sources import Depth, Found, RgbdImage
from matcher.pipeline import Matcher, PairOptions
from matcher.reconstruction.colmap_model import read_model
from matcher.reconstruction.model import Reconstruction
from matcher.structures import Camera, Pose

__all__ = ["ReferenceMap"]


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceMap:
    """Photographs whose place is known, with points of the world.

    Attributes:
        references: the photographs, in the order they were given.
        missing: name of every photograph that could not be used, and why.
        is_metric: whether the world is in metres.
        retrieval: finds the references that resemble a query; ``None``: it is built when a query
            cannot be matched with all of them.

    Raises:
        InputError: not one reference; another number of photographs in the retrieval index.
    """

    references: tuple[Reference, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    is_metric: bool = True
    retrieval: RetrievalIndex | None = None
    _open: dict[str, Localizer] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.references:
            why = f"none ({summary(self.missing)})" if self.missing else "none"
            raise InputError("map", "at least one photograph with 3-D points", why)
        if self.retrieval is not None and self.retrieval.names != self.names:
            raise InputError("retrieval", "the photographs of the map", "others")

    def __len__(self) -> int:
        return len(self.references)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the references."""
        return tuple(reference.name for reference in self.references)

    @classmethod
    def from_colmap(
        cls,
        folder: str | os.PathLike[str],
        *,
        images: str | os.PathLike[str],
        is_metric: bool = False,
    ) -> ReferenceMap:
        """A map from a COLMAP model and its photographs.

        Photographs may be stored smaller or larger than they were reconstructed, at the same
        aspect.

        Args:
            folder: of the model, binary or text.
            images: the folder that the model's image names are relative to.
            is_metric: whether the model is in metres; structure from motion alone is not.

        Raises:
            DatasetError: no model there, or a broken one.
            InputError: not one photograph that is there and observes 3-D points.
            MissingDependencyError: pycolmap is not installed.
        """
        reconstruction = replace(read_model(folder), is_metric=is_metric)
        return cls.from_reconstruction(reconstruction, images=images)

    @classmethod
    def from_reconstruction(
        cls,
        reconstruction: Reconstruction,
        *,
        images: str | os.PathLike[str],
        min_confidence: float = 1.5,
    ) -> ReferenceMap:
        """A map from a reconstruction: pointmaps where it has them, else triangulated points.

        Args:
            reconstruction: photographs in one frame.
            images: the folder that their names are relative to.
            min_confidence: points of pointmaps below this confidence of the network are left out.

        Raises:
            InputError: not one photograph that is there and knows points.
        """
        found = sources.from_reconstruction(reconstruction, Path(images), min_confidence)
        return cls(found.references, found.missing, reconstruction.is_metric)

    @classmethod
    def from_rgbd(
        cls,
        images: Sequence[str | os.PathLike[str]],
        depths: Sequence[Depth],
        poses: Sequence[Pose],
        cameras: Camera | Sequence[Camera],
        *,
        depth_scale: float = 1000.0,
        is_metric: bool = True,
    ) -> ReferenceMap:
        """A map from photographs with depth maps and poses.

        Args:
            images: N photographs. Their names in the map are relative to the folder they share.
            depths: N z-depth maps: 16-bit PNG, TIFF or ``.npy`` files, or (h, w) arrays; 0 or NaN
                where nothing was measured. They may be smaller or larger than the photographs, at
                the same aspect.
            poses: N poses ``cam_from_world``.
            cameras: of all photographs, or N.
            depth_scale: stored units of depth in one unit of the poses.
            is_metric: whether the poses are in metres.

        Raises:
            InputError: lists of different lengths, a scale that is not positive, not one
                photograph with a depth map.
        """
        paths = [Path(image) for image in images]
        each = [cameras] * len(paths) if isinstance(cameras, Camera) else list(cameras)
        for name, values in (("depths", depths), ("poses", poses), ("cameras", each)):
            if len(values) != len(paths):
                raise InputError(name, f"{len(paths)}, one a photograph", f"{len(values)}")
        if not depth_scale > 0:
            raise InputError("depth_scale", "a positive number", f"{depth_scale}")
        root = common_root(paths) if paths else Path()
        found = sources.from_rgbd(
            [
                RgbdImage(
                    Path(os.path.abspath(path)).relative_to(root).as_posix(),
                    path,
                    depth,
                    pose,
                    camera,
                    depth_scale,
                )
                for path, depth, pose, camera in zip(paths, depths, poses, each, strict=True)
            ]
        )
        return cls(found.references, found.missing, is_metric)

    @classmethod
    def from_rgbd_list(
        cls, path: str | os.PathLike[str], *, is_metric: bool = True
    ) -> ReferenceMap:
        """A map from a file with an RGB-D image on each line, as JSON.

        ``image`` and ``depth`` (relative to the file's folder), ``K`` (3 x 3) or ``camera``
        (``model``, ``params``), ``cam_from_world`` (4 x 4), ``depth_scale`` (1000 without it).

        Raises:
            DatasetError: no such file.
            InputError: not one photograph with a depth map.
        """
        images, broken = sources.read_rgbd_list(Path(path))
        found = sources.from_rgbd(images)
        return cls(found.references, {**broken, **found.missing}, is_metric)

    @classmethod
    def from_image(
        cls, image: str | os.PathLike[str], camera: Camera | None = None
    ) -> ReferenceMap:
        """A map of one photograph and nothing else (as in Map-free relocalization).

        The world is the photograph's camera frame. Translations are in metres if the weights are
        metric, and of length 1 otherwise.

        Args:
            image: the photograph.
            camera: its intrinsics, if known.

        Raises:
            InputError: a photograph that cannot be read.
        """
        path = Path(image)
        size = photograph_size(path)
        reference = Reference(path.name, path, camera, Pose.identity(), size, None)
        return cls((reference,), is_metric=False)

    def with_retrieval(
        self,
        matcher: Matcher,
        *,
        options: PairOptions | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ReferenceMap:
        """The map with an index of its photographs for one model; each is encoded once.

        Raises:
            InputError: a photograph that cannot be read.
        """
        index = RetrievalIndex.of_files(
            matcher,
            self.names,
            [reference.path for reference in self.references],
            options=options,
            progress=progress,
        )
        return replace(self, retrieval=index)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the map into a folder of its own, whole or not at all.

        The photographs stay where they are; depth maps and points are copied.

        Raises:
            InputError: the map is a single photograph, the folder exists and is no map, or it
                cannot be written.
        """
        map_files.write_map(
            Path(folder), Found(self.references, self.missing), self.is_metric, self.retrieval
        )

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        images: str | os.PathLike[str] | None = None,
    ) -> ReferenceMap:
        """Read what :meth:`save` wrote.

        Args:
            folder: of the map.
            images: where the photographs are now; ``None``: where they were.

        Raises:
            DatasetError: no map there, or a broken one (checksums are compared).
            InputError: not one of its photographs is there.
        """
        found, is_metric, index = map_files.read_map(
            Path(folder), None if images is None else Path(images)
        )
        return cls(found.references, found.missing, is_metric, index)

    def localizer(self, matcher: Matcher, options: LocalizationOptions | None = None) -> Localizer:
        """What localizes queries one after the other, and remembers encoded references.

        Raises:
            InputError: the retrieval index was made by another model.
        """
        return Localizer(
            matcher,
            self.references,
            self.retrieval,
            is_metric=self.is_metric,
            options=options or LocalizationOptions(),
        )

    def localize(
        self,
        matcher: Matcher,
        query: ImageSource,
        camera: Camera | None = None,
        *,
        options: LocalizationOptions | None = None,
    ) -> AbsolutePose:
        """Where a photograph was taken.

        References that were encoded for an earlier query, with the same matcher and options, are
        not encoded again.

        Args:
            matcher: finds what the query and the references have in common.
            query: the photograph.
            camera: its intrinsics, in its own pixels; ``None``: the focal is estimated too.
            options: references, threshold, seed.

        Returns:
            The pose, its inliers and covariance, or a reason.

        Raises:
            InputError: a photograph that cannot be read, or the retrieval index was made by
                another model.
        """
        options = options or LocalizationOptions()
        last = self._open.get("last")
        if last is None or last.matcher is not matcher or last.options != options:
            if last is not None:
                last.close()
            last = self._open["last"] = self.localizer(matcher, options)
        return last.localize(query, camera)

    def draw(
        self,
        answer: AbsolutePose,
        query: ImageSource,
        path: str | os.PathLike[str] | None = None,
        *,
        max_references: int = 3,
        max_matches: int = 150,
    ) -> RgbArray:
        """Draw the query beside its best references, with what agrees with the pose in colour.

        Args:
            answer: of :meth:`localize`.
            query: the photograph.
            path: where to write the picture; ``None`` only returns it.
            max_references: so many, the most inliers first.
            max_matches: drawn for each.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            InputError: a path that cannot be written.
        """
        paths = {reference.name: reference.path for reference in self.references}
        return draw_localization(
            answer, query, paths, path, max_references=max_references, max_matches=max_matches
        )
