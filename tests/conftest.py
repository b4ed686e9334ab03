"""What every test shares: a reproducible hypothesis profile, and where optional data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Derandomized: the same commit tests the same examples. No deadline: a shared machine may be slow.
settings.register_profile(
    "widebase",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("widebase")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of development data and reference values; the test is skipped without it.

    ``WIDEBASE_SHARED`` names it; without the variable, a folder ``shared`` beside the checkout.
    """
    named = os.environ.get("WIDEBASE_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip("development data is absent; set WIDEBASE_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def parity_data() -> Path:
    """The folder of the reference values that are committed."""
    return Path(__file__).resolve().parent / "parity" / "data"
