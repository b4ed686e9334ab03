"""Checkpoints: names to files, our own format, the released layouts both ways."""

from __future__ import annotations

from matcher.checkpoints.hub import read_hub, write_hub
from matcher.checkpoints.info import CheckpointInfo, LoadedCheckpoint, LoadedCroCo
from matcher.checkpoints.native import read_native, read_native_info, save_native
from matcher.checkpoints.registry import (
    AvailableCheckpoint,
    available_checkpoints,
    layout_of,
    load_checkpoint,
    load_croco,
)
from matcher.checkpoints.released import ReleasedCheckpoint, read_released, write_released

__all__ = [
    "AvailableCheckpoint",
    "CheckpointInfo",
    "LoadedCheckpoint",
    "LoadedCroCo",
    "ReleasedCheckpoint",
    "available_checkpoints",
    "layout_of",
    "load_checkpoint",
    "load_croco",
    "read_hub",
    "read_native",
    "read_native_info",
    "read_released",
    "save_native",
    "write_hub",
    "write_released",
]
