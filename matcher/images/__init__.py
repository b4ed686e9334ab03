"""Reading photographs, and preparing them for the network."""

from __future__ import annotations

from matcher.images.exif import exif_focal
from matcher.images.reading import ImageSource, RgbArray, read_image
from matcher.images.views import crop_view, prepare_view, released_crop

__all__ = [
    "ImageSource",
    "RgbArray",
    "crop_view",
    "exif_focal",
    "prepare_view",
    "read_image",
    "released_crop",
]
