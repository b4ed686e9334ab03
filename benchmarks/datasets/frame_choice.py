"""A fixed choice of frames of a video: the same wherever it is made, whatever else is there."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

__all__ = ["choose_frames", "frame_list_sha256"]

_Frame = TypeVar("_Frame")


def choose_frames(
    sequence: str, frames: Sequence[_Frame], count: int, seed: int = 0
) -> list[_Frame]:
    """``count`` of the frames at random, in their order.

    The draw depends on the seed, the sequence's name and the number of frames alone, so that a
    sequence more or less on disk leaves the choice of the others as it was.
    """
    if count >= len(frames):
        return list(frames)
    generator = np.random.default_rng((seed, zlib.crc32(sequence.encode())))
    return [frames[row] for row in np.sort(generator.permutation(len(frames))[:count])]


def frame_list_sha256(chosen: Mapping[str, Sequence[object]]) -> str:
    """Fingerprint of a choice, sequences in alphabetical order."""
    lines = (f"{name} {' '.join(map(str, chosen[name]))}\n" for name in sorted(chosen))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
