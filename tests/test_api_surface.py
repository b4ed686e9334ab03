"""The public names: none disappears unnoticed, and ``__all__`` is sorted and true."""

from __future__ import annotations

import pytest

import heads
import matcher

# A name leaves these lists only with a line in CHANGELOG.md under "Removed".
MATCHER_NAMES = (
    "AbsolutePose",
    "Camera",
    "CheckpointError",
    "CheckpointInfo",
    "CloudOptions",
    "DatasetError",
    "EncodedImage",
    "ImageSize",
    "InputError",
    "LocalizationOptions",
    "MatchStore",
    "Matcher",
    "MatcherError",
    "Matches",
    "MatchingOptions",
    "MemoryLimits",
    "MissingDependencyError",
    "PairOptions",
    "PairResult",
    "Photographs",
    "PointCloud",
    "Pose",
    "Reconstruction",
    "ReferenceMap",
    "RelativePose",
    "RelativePoseOptions",
    "WidebaseModule",
    "__version__",
    "reconstruct",
)
HEADS_NAMES = ("ActivationRange", "DenseHead", "DenseOutput", "HeadConfig", "RawMaps", "build_head")


@pytest.mark.parametrize("package", [matcher, heads])
def test_all_is_sorted_and_every_name_exists(package: object) -> None:
    names = list(package.__all__)  # type: ignore[attr-defined]
    assert names == sorted(set(names))
    assert [name for name in names if not hasattr(package, name)] == []


@pytest.mark.parametrize("name", MATCHER_NAMES)
def test_matcher_keeps_its_names(name: str) -> None:
    assert name in matcher.__all__


@pytest.mark.parametrize("name", HEADS_NAMES)
def test_heads_keeps_its_names(name: str) -> None:
    assert name in heads.__all__


def test_nothing_is_public_unlisted() -> None:
    """A new public name is a promise: it is listed here on purpose."""
    assert set(matcher.__all__) == set(MATCHER_NAMES)
    assert set(heads.__all__) == set(HEADS_NAMES)
