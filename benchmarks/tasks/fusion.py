"""From the matches of one reference with its neighbours to points that several of them confirm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from benchmarks.core.protocols import EstimatorOptions
from benchmarks.core.samples import FloatArray, MultiViewTruth
from benchmarks.core.tasks import Answered
from benchmarks.tasks.pairs import resized_keypoints
from matcher.errors import InputError
from matcher.geometry.camera import resize_camera, unproject
from matcher.reconstruction.match_fusion import MatchFusionOptions, Neighbour, fuse_neighbours
from matcher.structures import Camera, Pose

__all__ = ["FusionOptions", "fuse_reference"]


@dataclass(frozen=True, slots=True)
class FusionOptions(EstimatorOptions):
    """What a triangulated match must fulfil; the one threshold is its reprojection error.

    Attributes:
        min_angle_deg: between the two viewing rays.
        min_neighbours: of one reference that must agree on the depth of a pixel.
        max_depth_difference: from the median depth of the pixel, as a share of it.
    """

    min_angle_deg: float = 1.0
    min_neighbours: int = 2
    max_depth_difference: float = 0.01

    def __post_init__(self) -> None:
        # The zero-argument form loses its class where slots make the decorator build a new one.
        EstimatorOptions.__post_init__(self)
        if len(self.thresholds) != 1 or self.repeats != 1:
            raise InputError("multiview", "one threshold and one repeat", f"{self}")

    @classmethod
    def of(cls, options: EstimatorOptions) -> FusionOptions:
        """The defaults with a plain estimator's threshold."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(options)})

    @property
    def consistency(self) -> MatchFusionOptions:
        """The same for the library's fusion."""
        return MatchFusionOptions(
            self.thresholds[0], self.min_angle_deg, self.min_neighbours, self.max_depth_difference
        )


def fuse_reference(answers: Sequence[Answered], options: FusionOptions) -> FloatArray:
    """Points of one reference.

    Args:
        answers: pairs whose photograph 0 is that reference.
        options: what counts.

    Returns:
        (N, 3) in the world's frame.
    """
    fused = fuse_neighbours([_neighbour(answered) for answered in answers], options.consistency)
    camera0, _ = _cameras(answers[0])
    in_camera = unproject(fused.pixels, fused.depths, camera0)
    return Pose.from_matrix(_truth(answers[0]).cam0_from_world).inverse.transform(in_camera)


def _neighbour(answered: Answered) -> Neighbour:
    truth = _truth(answered)
    cam1_from_cam0 = (
        Pose.from_matrix(truth.cam1_from_world) @ Pose.from_matrix(truth.cam0_from_world).inverse
    )
    return Neighbour(*resized_keypoints(answered), *_cameras(answered), cam1_from_cam0)


def _cameras(answered: Answered) -> tuple[Camera, Camera]:
    """Of the resized photographs."""
    truth, frame = _truth(answered), answered.frame
    return (
        resize_camera(Camera.from_matrix(truth.k0), frame.resized0, frame.stored0),
        resize_camera(Camera.from_matrix(truth.k1), frame.resized1, frame.stored1),
    )


def _truth(answered: Answered) -> MultiViewTruth:
    truth = answered.sample.truth
    assert isinstance(truth, MultiViewTruth)
    return truth
