"""What is known about a checkpoint besides its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matcher.calibration import ConfidenceCalibration
from matcher.model.croco import CroCoNetwork
from matcher.model.network import TwoViewNetwork

__all__ = ["CheckpointInfo", "CheckpointLayout", "LoadedCheckpoint", "LoadedCroCo"]

CheckpointLayout = Literal["native", "released", "hub"]


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """Where weights come from and what may be done with them.

    Attributes:
        name: how to call the model.
        licence: SPDX identifier or usual name of the weights' licence, or ``"unknown"``.
        layout: ``native`` (one safetensors file), ``released`` (``.pth``) or ``hub`` (a folder
            with ``config.json`` and ``model.safetensors``).
        is_metric: whether the pointmaps are in metres.
        sha256: hexadecimal hash of the file that holds the weights; empty before it is written.
        source: where the weights come from, for instance the file's path.
        notes: training data, recipe, whatever a model card says, as plain text.
        calibration: how its matches' features become probabilities, or ``None``: never fitted.
    """

    name: str
    licence: str = "unknown"
    layout: CheckpointLayout = "native"
    is_metric: bool = False
    sha256: str = ""
    source: str = ""
    notes: str = ""
    calibration: ConfidenceCalibration | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LoadedCheckpoint:
    """A two-view network in evaluation mode, and what is known about its weights."""

    network: TwoViewNetwork
    info: CheckpointInfo


@dataclass(frozen=True, slots=True, eq=False)
class LoadedCroCo:
    """A CroCo network in evaluation mode, and what is known about its weights."""

    network: CroCoNetwork
    info: CheckpointInfo
