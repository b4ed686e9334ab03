"""A picture of an answer: the query beside the references that know where it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from matcher.drawing import check_picture_path, draw_matches, write_picture
from matcher.errors import InputError
from matcher.images import ImageSource, RgbArray, read_image
from matcher.localization.answer import AbsolutePose

__all__ = ["draw_localization"]


def draw_localization(
    answer: AbsolutePose,
    query: ImageSource,
    references: Mapping[str, Path],
    path: str | os.PathLike[str] | None = None,
    *,
    max_references: int = 3,
    max_matches: int = 150,
) -> RgbArray:
    """Draw the query beside its best references, one pair below the other.

    Correspondences that agree with the pose are in colour, the rest lies beneath in a faint red.

    Args:
        answer: what was found.
        query: the photograph.
        references: the file of each reference that the answer names.
        path: where to write the picture; ``None`` only returns it.
        max_references: so many, the most inliers first.
        max_matches: drawn for each.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: a photograph that cannot be read, a path that cannot be written, or an answer
            that names no reference.
    """
    if path is not None:
        check_picture_path(path)
    if max_references < 1:
        raise InputError("max_references", "at least 1", f"{max_references}")
    if not answer.references:
        raise InputError("answer", "references that the query was matched with", "none")
    photograph = read_image(query, "query")
    found = answer.correspondences
    strips = []
    for number, used in enumerate(answer.references[:max_references]):
        rows = found.reference == number
        title = (
            f"{used.name}: {used.num_inliers} of {int(rows.sum())} points agree"
            if answer
            else f"{used.name}: {int(rows.sum())} points, no pose"
        )
        strips.append(
            draw_matches(
                photograph,
                read_image(references[used.name], used.name),
                found.keypoints[rows],
                found.reference_keypoints[rows],
                found.confidence[rows],
                inlier_mask=answer.inlier_mask[rows],
                max_matches=max_matches,
                title=title,
            )
        )
    width = max(strip.shape[1] for strip in strips)
    # Narrower strips are widened with the colour of their own margin.
    picture = np.concatenate([_widened(strip, width) for strip in strips])
    if path is not None:
        write_picture(path, picture)
    return picture


def _widened(strip: RgbArray, width: int) -> RgbArray:
    wide = np.empty((strip.shape[0], width, 3), np.uint8)
    wide[:] = strip[0, 0]
    left = (width - strip.shape[1]) // 2
    wide[:, left : left + strip.shape[1]] = strip
    return wide
