"""A pair's record as bytes and back: safetensors, with the plain values as JSON in its header."""

from __future__ import annotations

import json
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from matcher.errors import InputError
from matcher.pair_records import PairRecord
from matcher.pointmaps import Pointmaps
from matcher.structures import ImageSize, Matches

__all__ = ["PointmapPrecision", "pack_record", "unpack_record"]

PointmapPrecision = Literal["none", "float16", "float32"]
"""Whether pointmaps are kept, and how exactly; float16 has three digits and ends at 65504."""

_MAPS = ("points0", "points1", "confidence0", "confidence1")
_TRANSFORMS = ("original0_from_network", "original1_from_network")
_OWN1 = "points1_in_camera1"
_HEADER = "record"


def pack_record(record: PairRecord, precision: PointmapPrecision) -> bytes:
    """A record as the bytes of a file.

    Args:
        record: the record.
        precision: of its pointmaps, which are left out with ``"none"``.
    """
    matches, maps = record.matches, record.pointmaps
    tensors = {
        name: getattr(matches, name).contiguous()
        for name in ("keypoints0", "keypoints1", "confidence")
    }
    if maps is not None and precision != "none":
        arrays = {f"maps.{name}": _rounded(getattr(maps, name), precision) for name in _MAPS}
        if maps.points1_in_camera1 is not None:
            arrays[f"maps.{_OWN1}"] = _rounded(maps.points1_in_camera1, precision)
        arrays |= {f"maps.{name}": getattr(maps, name) for name in _TRANSFORMS}
        # A copy: torch shares no memory with arrays that must not be written to.
        tensors |= {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    values = {
        "names": record.names,
        "sizes": [[size.height, size.width] for size in (record.size0, record.size1)],
        "overlap_score": record.overlap_score,
        "reason": record.reason,
    }
    packed: bytes = save(tensors, {_HEADER: json.dumps(values)})
    return packed


def unpack_record(packed: bytes, *, keep_pointmaps: bool = True) -> PairRecord:
    """The record of :func:`pack_record`; pointmaps are float32 again.

    Raises:
        InputError: bytes that hold no record.
    """
    try:
        tensors = load(packed)
        values = json.loads(_header(packed)[_HEADER])
        name0, name1 = values["names"]
        size0, size1 = (ImageSize(*size) for size in values["sizes"])
        return PairRecord(
            name0,
            name1,
            Matches(tensors["keypoints0"], tensors["keypoints1"], tensors["confidence"]),
            size0,
            size1,
            values["overlap_score"],
            values["reason"],
            _pointmaps(tensors) if keep_pointmaps else None,
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError("pair file", "the record of a pair", f"other bytes ({reason})") from None


def _header(packed: bytes) -> dict[str, Any]:
    """The plain values beside the tensors: a JSON object after its length in 8 bytes."""
    length = int.from_bytes(packed[:8], "little")
    header: dict[str, Any] = json.loads(packed[8 : 8 + length])["__metadata__"]
    return header


def _pointmaps(tensors: dict[str, Tensor]) -> Pointmaps | None:
    if "maps.points0" not in tensors:
        return None
    maps = {name: tensors[f"maps.{name}"].float().numpy() for name in _MAPS}
    transforms = {name: tensors[f"maps.{name}"].numpy() for name in _TRANSFORMS}
    own1 = tensors.get(f"maps.{_OWN1}")
    return Pointmaps(
        **maps,
        **transforms,
        points1_in_camera1=None if own1 is None else own1.float().numpy(),
    )


def _rounded(
    values: npt.NDArray[np.float32], precision: PointmapPrecision
) -> npt.NDArray[np.floating[Any]]:
    if precision == "float32":
        return values.astype(np.float32, copy=False)
    largest = np.finfo(np.float16).max
    return values.clip(-largest, largest).astype(np.float16)
