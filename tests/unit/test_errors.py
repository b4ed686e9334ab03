from __future__ import annotations

import pickle

import pytest

from matcher.errors import (
    CheckpointError,
    DatasetError,
    InputError,
    MatcherError,
    MissingDependencyError,
)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InputError, ValueError),
        (CheckpointError, ValueError),
        (DatasetError, FileNotFoundError),
        (MissingDependencyError, ImportError),
    ],
)
def test_each_is_ours_and_a_builtin(kind: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(kind, MatcherError)
    assert issubclass(kind, builtin)


def test_input_error_names_argument_expected_and_actual() -> None:
    error = InputError("image0", "a file", "a directory")
    assert str(error) == "image0: expected a file, got a directory"
    assert (error.argument, error.expected, error.actual) == ("image0", "a file", "a directory")


def test_missing_dependency_says_how_to_install() -> None:
    error = MissingDependencyError("pycolmap", "colmap", "COLMAP export")
    assert str(error) == (
        "COLMAP export needs pycolmap; install it with: pip install 'widebase[colmap]'"
    )


@pytest.mark.parametrize(
    "error",
    [
        InputError("a", "b", "c"),
        MissingDependencyError("p", "e", "u"),
        CheckpointError("torn"),
        DatasetError("gone"),
    ],
)
def test_survives_a_process_boundary(error: MatcherError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
