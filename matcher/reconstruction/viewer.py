"""One HTML file that shows a reconstruction: turn, move, zoom; no network, no installation."""

from __future__ import annotations

import base64
import json
import os
from importlib.resources import files
from typing import Any

import numpy as np

from matcher.files import written
from matcher.reconstruction.model import Reconstruction
from matcher.reconstruction.point_cloud import PointCloud
from matcher.reconstruction.scene_layout import (
    FRUSTUM_EDGES,
    frustum_colors,
    frustum_corners,
    frustum_depth,
    three_quarter_view,
)
from matcher.structures import FloatArray

__all__ = ["write_html"]

_PLACEHOLDER = "/*SCENE*/"
_ASPECT = 16 / 9


def write_html(
    path: str | os.PathLike[str],
    reconstruction: Reconstruction,
    cloud: PointCloud,
    *,
    title: str = "Reconstruction",
    max_points: int = 600_000,
) -> None:
    """Write the interactive view, in one step.

    Positions are kept as shares of the cloud's box in 16 bits; a point takes 12 bytes.

    Args:
        path: a name that ends in .html.
        reconstruction: its cameras are drawn, with names; what has no place is listed.
        cloud: its points.
        title: of the page.
        max_points: of a larger cloud so many are shown, drawn at random.

    Raises:
        InputError: another suffix, a folder that does not exist or refuses the file, a cap below 1.
    """
    scene = _scene(reconstruction, cloud.thinned(max_points), title, len(cloud))
    # "<" could end the script element that holds the scene, in a name for instance.
    text = json.dumps(scene, allow_nan=False).replace("<", "\\u003c")
    page = (files("matcher.reconstruction") / "viewer.html").read_text("utf-8")
    before, after = page.split(_PLACEHOLDER)
    with written(path, (".html", ".htm")) as stream:
        for part in (before, text, after):
            stream.write(part.encode())


def _scene(
    reconstruction: Reconstruction, cloud: PointCloud, title: str, num_points: int
) -> dict[str, Any]:
    """What the page's script reads. Positions are relative to the middle: browsers use float32."""
    images = reconstruction.images
    view = three_quarter_view(images, cloud.positions, _ASPECT)
    depth = frustum_depth(images, cloud.positions) if images else 0.0
    corners = [
        image.cam_from_world.inverse.transform(frustum_corners(image, depth)) for image in images
    ]
    shown = cloud.positions if len(cloud) else np.zeros((1, 3))
    middle = (shown.min(axis=0) + shown.max(axis=0)) / 2
    low, span = shown.min(axis=0), np.maximum(np.ptp(shown, axis=0), 1e-9)
    cells = np.rint((cloud.positions - low) / span * 65535).astype("<u2")
    cameras = [
        {
            "name": image.name,
            "corners": _rounded(places - middle),
            "color": color.tolist(),
            "angle": 2 * float(np.arctan(image.size.height / (2 * image.camera.focals[1]))),
        }
        for image, places, color in zip(images, corners, frustum_colors(len(images)), strict=True)
    ]
    return {
        "title": title,
        "about": _about(reconstruction, len(cloud), num_points),
        "missing": sorted(reconstruction.unregistered.items()),
        "positions": base64.b64encode(cells.tobytes()).decode("ascii"),
        "colors": base64.b64encode(cloud.colors.tobytes()).decode("ascii"),
        "low": (low - middle).tolist(),
        "span": span.tolist(),
        "extent": float(np.linalg.norm(view.eye - view.target)),
        "cameras": cameras,
        "edges": FRUSTUM_EDGES,
        "eye": (view.eye - middle).tolist(),
        "target": (view.target - middle).tolist(),
        "up": view.up.tolist(),
        "angle": float(np.radians(view.field_of_view_deg)),
        "pointSize": float(np.clip(1600 / np.sqrt(len(cloud) + 1), 1.5, 5.0)),
    }


def _about(reconstruction: Reconstruction, shown: int, num_points: int) -> str:
    text = f"{len(reconstruction.images)} photographs, {num_points} points"
    if shown < num_points:
        text += f" ({shown} shown)"
    if reconstruction.model:
        text += f"; {reconstruction.model} ({reconstruction.licence})"
    return text


def _rounded(positions: FloatArray) -> list[list[float]]:
    return [[float(f"{value:.7g}") for value in row] for row in positions.tolist()]
