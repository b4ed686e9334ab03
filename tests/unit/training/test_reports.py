from __future__ import annotations

import math

import pytest
import torch

from matcher.training.losses import LossTerms
from matcher.training.reports import detached, mean_terms


def terms(total: float, pointmap_error: float, pixels: int, matches: int = 10) -> LossTerms:
    parts = (total, 2 * pointmap_error, total, pointmap_error, total)
    return LossTerms(
        *(torch.tensor(part) for part in parts), torch.tensor(pixels), torch.tensor(matches)
    )


def test_a_batch_without_depth_says_nothing_of_the_pointmaps() -> None:
    mean = mean_terms([terms(4.0, 1.0, 100), terms(2.0, 0.0, 0), terms(3.0, 2.0, 300)]).values()
    assert mean.total == pytest.approx(3.0)
    assert mean.pointmap_error == pytest.approx((100 * 1.0 + 300 * 2.0) / 400)
    assert mean.pointmap == pytest.approx(2 * mean.pointmap_error)
    assert (mean.num_pixels, mean.num_matches) == (400, 30)


def test_matches_weigh_the_matching_error() -> None:
    mean = mean_terms([terms(4.0, 0.0, 0, matches=30), terms(math.nan, 0.0, 0, matches=0)])
    assert mean.values().matching_error == pytest.approx(4.0)
    assert mean.values().pointmap_error == 0
    assert math.isnan(mean.values().total)


def test_no_graph_is_kept() -> None:
    one = terms(1.0, 1.0, 1)
    one.total.requires_grad_()
    assert not detached(one).total.requires_grad
    assert mean_terms([detached(one)]).values() == one.values()
