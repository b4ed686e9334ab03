"""The one adapter to pycolmap (optional extra ``colmap``): cameras, poses, models, clear errors.

COLMAP puts (0.5, 0.5) at the centre of the first pixel; what passes through here is shifted to and
from our integer pixel centres. Written for pycolmap 4.
"""

from __future__ import annotations

from matcher.colmap.cameras import camera_from_pycolmap, camera_to_pycolmap, pose_to_pycolmap
from matcher.colmap.library import import_pycolmap, quiet, reason_of
from matcher.colmap.models import observations_of, open_model, pose_of

__all__ = [
    "camera_from_pycolmap",
    "camera_to_pycolmap",
    "import_pycolmap",
    "observations_of",
    "open_model",
    "pose_of",
    "pose_to_pycolmap",
    "quiet",
    "reason_of",
]
