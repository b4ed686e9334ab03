"""The answer of localization: where the query was taken from, or why that cannot be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.geometry.covariance import center_covariance
from matcher.localization.correspondences import Correspondences
from matcher.structures import Camera, FloatArray, Pose

__all__ = ["AbsolutePose", "UsedReference"]


@dataclass(frozen=True, slots=True)
class UsedReference:
    """What one reference photograph contributed.

    Attributes:
        name: as the map names it.
        num_matches: of the query with it.
        num_inliers: of them, with a known point, distinct, and in agreement with the pose.
    """

    name: str
    num_matches: int
    num_inliers: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class AbsolutePose:
    """Where a query was taken from, or why that cannot be said.

    Attributes:
        cam_from_world: the pose, or ``None``.
        references: the references that it was matched with, the most inliers first.
        correspondences: distinct pixels with points; their ``reference`` counts ``references``.
        inlier_mask: (M,) bool, which of them agree with the pose (all false without one).
        camera: the query's camera, given or estimated; ``None`` without an answer.
        covariance: (6, 6) of the pose, as ``matcher.geometry.covariance`` defines it (rotation in
            radians, then translation, both in the camera's frame), an estimated focal taken for
            true; ``None`` where it is not known.
        is_metric: whether the translation is in metres.
        method: ``"pnp"``, ``"pnp_focal"`` (the focal was estimated too), or ``"relative"`` (the map
            is one photograph; without metric weights the translation then has length 1).
        reason: ``None`` with a pose; otherwise one sentence that says why there is none.

    Raises:
        InputError: a pose and a reason, or neither.
    """

    cam_from_world: Pose | None
    references: tuple[UsedReference, ...]
    correspondences: Correspondences
    inlier_mask: npt.NDArray[np.bool_]
    camera: Camera | None = None
    covariance: FloatArray | None = None
    is_metric: bool = False
    method: str = ""
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.cam_from_world is None) != (self.reason is not None):
            raise InputError(
                "absolute pose", "either a pose or a reason", "both" if self.reason else "neither"
            )

    def __bool__(self) -> bool:
        return self.cam_from_world is not None

    @property
    def num_inliers(self) -> int:
        """Number of correspondences that agree with the pose."""
        return int(np.count_nonzero(self.inlier_mask))

    @property
    def center(self) -> FloatArray | None:
        """(3,) where the camera stood, world frame."""
        return None if self.cam_from_world is None else self.cam_from_world.inverse.translation

    @property
    def center_covariance(self) -> FloatArray | None:
        """(3, 3) covariance of :attr:`center`, world frame."""
        if self.cam_from_world is None or self.covariance is None:
            return None
        return center_covariance(self.cam_from_world, self.covariance)

    @classmethod
    def none(
        cls,
        reason: str,
        references: Sequence[UsedReference],
        correspondences: Correspondences,
    ) -> AbsolutePose:
        """No answer, because of ``reason``."""
        return cls(
            None,
            tuple(references),
            correspondences,
            np.zeros(len(correspondences), np.bool_),
            reason=reason,
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain values, for JSON: a pose, or a reason why there is none."""
        pose, camera = self.cam_from_world, self.camera
        values: dict[str, Any] = {
            "cam_from_world": None
            if pose is None
            else {"rotation": pose.rotation.tolist(), "translation": pose.translation.tolist()},
            "num_inliers": self.num_inliers,
            "num_correspondences": len(self.correspondences),
            "references": [
                {"name": used.name, "matches": used.num_matches, "inliers": used.num_inliers}
                for used in self.references
            ],
        }
        if pose is None:
            return values | {"reason": self.reason}
        return values | {
            "method": self.method,
            "is_metric": self.is_metric,
            "camera": None
            if camera is None
            else {"model": camera.model, "params": list(camera.params)},
            "covariance": None if self.covariance is None else self.covariance.tolist(),
        }
