"""What a head says about every pixel of one view."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["DenseOutput", "RawMaps"]


@dataclass(frozen=True, slots=True, eq=False)
class RawMaps:
    """A head's maps before the activations, channel first.

    Attributes:
        points: (B, 4, H, W) xyz and confidence, or ``None`` where they were not asked for.
        features: (B, D + 1, H, W) descriptor and its confidence ((B, D, H, W) when the confidence
            is shared), or ``None``.
    """

    points: Tensor | None
    features: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DenseOutput:
    """Dense maps of one view of a pair, channel last.

    Attributes:
        points: (B, H, W, 3) pointmap in the frame of camera 0 (OpenCV axes), or ``None`` where it
            was not asked for.
        confidence: (B, H, W) confidence of ``points``; > 1 in the ``exp`` mode. ``None`` as they.
        descriptors: (B, H, W, D) local features of unit length, or ``None`` (DUSt3R has none).
        descriptor_confidence: (B, H, W) confidence of ``descriptors``, > 0, or ``None``.
    """

    points: Tensor | None
    confidence: Tensor | None
    descriptors: Tensor | None = None
    descriptor_confidence: Tensor | None = None

    def __getitem__(self, index: int | slice) -> DenseOutput:
        """Select along the batch dimension (an ``int`` keeps it, with length 1)."""
        rows = slice(index, index + 1) if isinstance(index, int) else index
        return DenseOutput(
            None if self.points is None else self.points[rows],
            None if self.confidence is None else self.confidence[rows],
            None if self.descriptors is None else self.descriptors[rows],
            None if self.descriptor_confidence is None else self.descriptor_confidence[rows],
        )

    def pointmap(self) -> tuple[Tensor, Tensor]:
        """``points`` and ``confidence``, which must be there."""
        if self.points is None or self.confidence is None:
            raise ValueError("points: expected a prediction with pointmaps, got one without")
        return self.points, self.confidence
