"""A reconstruction of several photographs, and the files it can be written as."""

from __future__ import annotations

from matcher.reconstruction.model import (
    DensePoints,
    Reconstruction,
    RegisteredImage,
    SparsePoints,
)

__all__ = ["DensePoints", "Reconstruction", "RegisteredImage", "SparsePoints"]
