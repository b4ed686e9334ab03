"""Reading photographs, and preparing them for the network."""

from __future__ import annotations

from matcher.images.exif import exif_focal
from matcher.images.reading import ImageSource, RgbArray, read_image
from matcher.images.views import prepare_view, released_crop
from matcher.images.warp import warp_view

__all__ = [
    "ImageSource",
    "RgbArray",
    "exif_focal",
    "prepare_view",
    "read_image",
    "released_crop",
    "warp_view",
]
