"""How a localization protocol estimates a query's pose, and the presets of its data sets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from benchmarks.core.protocols import EstimatorOptions, Protocol, ResizeRule, ScoredFrame
from matcher.errors import InputError

__all__ = ["LocalizationOptions", "ThresholdUnit", "localization_options", "localization_protocols"]

ThresholdUnit = Literal["resized", "stored", "diagonal"]


@dataclass(frozen=True, slots=True)
class LocalizationOptions(EstimatorOptions):
    """The estimator of a query's pose: one threshold, one run.

    Attributes:
        threshold_unit: ``resized``: pixels of the resized query; ``stored``: of the stored one;
            ``diagonal``: share of the query's diagonal.
        estimate_focal: the query's focal is not told; principal point in the middle, no lens.
    """

    threshold_unit: ThresholdUnit = "resized"
    estimate_focal: bool = False

    def __post_init__(self) -> None:
        # The zero-argument form loses its class where slots make the decorator build a new one.
        EstimatorOptions.__post_init__(self)
        if self.threshold_unit not in get_args(ThresholdUnit):
            units = " or ".join(get_args(ThresholdUnit))
            raise InputError("threshold unit", units, f"{self.threshold_unit!r}")
        if len(self.thresholds) != 1 or self.repeats != 1:
            raise InputError("localization", "one threshold and one repeat", f"{self}")

    def threshold_px(self, frame: ScoredFrame) -> float:
        """The threshold in pixels of the resized query."""
        threshold = self.thresholds[0]
        if self.threshold_unit == "diagonal":
            return threshold * frame.resized0.diagonal
        if self.threshold_unit == "stored":
            return threshold * frame.resized0.diagonal / frame.stored0.diagonal
        return threshold


def localization_protocols(
    published_resize: ResizeRule, hloc_px: float | None = None
) -> dict[str, Protocol]:
    """The presets of a localization set.

    Args:
        published_resize: of MASt3R's evaluation of this set.
        hloc_px: threshold of hloc's evaluation, pixels of the stored query; ``None``: it has none.
    """
    presets = [
        Protocol(
            name="ours",
            resize=ResizeRule("long", 1600, only_shrink=True),
            estimator=LocalizationOptions("poselib", (5.0,), max_iterations=20_000),
            is_headline=True,
            note="PoseLib LO-RANSAC over P3P at 5 px, the same for every localization set",
        ),
        Protocol(
            name="mast3r-visloc",
            resize=published_resize,
            estimator=LocalizationOptions("poselib", (0.008,), threshold_unit="diagonal"),
            note="PoseLib at 0.008 of the query's diagonal; resized whole, without crops",
        ),
    ]
    if hloc_px is not None:
        side = 1600 if hloc_px > 12 else 1024
        presets.append(
            Protocol(
                name="hloc",
                resize=ResizeRule("long", side, only_shrink=True),
                estimator=LocalizationOptions("poselib", (hloc_px,), threshold_unit="stored"),
                note=f"hloc's threshold of {hloc_px:g} stored px; PoseLib in place of COLMAP",
            )
        )
    return {preset.name: preset for preset in presets}


def localization_options(protocol: Protocol) -> LocalizationOptions:
    """The options of a protocol; a plain estimator's threshold counts in resized pixels."""
    options = protocol.estimator
    if isinstance(options, LocalizationOptions):
        return options
    return LocalizationOptions(
        **{field.name: getattr(options, field.name) for field in fields(EstimatorOptions)}
    )
