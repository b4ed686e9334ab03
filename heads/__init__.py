"""Heads: tokens of one view of a pair -> dense maps. Imports torch only."""

from __future__ import annotations

from heads.build import DenseHead, build_head
from heads.config import ActivationRange, HeadConfig
from heads.outputs import DenseOutput, RawMaps

__all__ = ["ActivationRange", "DenseHead", "DenseOutput", "HeadConfig", "RawMaps", "build_head"]
