from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher.errors import InputError
from matcher.pairing import (
    complete_pairs,
    name_pairs,
    one_to_all_pairs,
    read_pairs,
    window_pairs,
    write_pairs,
)


def test_complete() -> None:
    assert complete_pairs(3) == [(0, 1), (0, 2), (1, 2)]
    assert complete_pairs(1) == complete_pairs(0) == []


def test_window() -> None:
    assert window_pairs(4, 1) == [(0, 1), (1, 2), (2, 3)]
    assert window_pairs(4, 2) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    assert window_pairs(4, 1, cyclic=True) == [(0, 1), (0, 3), (1, 2), (2, 3)]
    assert window_pairs(1, 3, cyclic=True) == []
    assert window_pairs(2, 5, cyclic=True) == [(0, 1)]


def test_one_to_all() -> None:
    assert one_to_all_pairs(4, 2) == [(0, 2), (1, 2), (2, 3)]
    assert one_to_all_pairs(1) == []


@given(num_images=st.integers(0, 12), window=st.integers(1, 15), cyclic=st.booleans())
def test_pairs_are_ordered_unique_and_in_range(num_images: int, window: int, cyclic: bool) -> None:
    every = set(complete_pairs(num_images))
    assert len(every) == num_images * (num_images - 1) // 2
    pairs = window_pairs(num_images, window, cyclic=cyclic)
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) <= every
    if window >= num_images:
        assert set(pairs) == every


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="num_images: expected 0 or more, got -1"):
        complete_pairs(-1)
    with pytest.raises(InputError, match="window: expected at least 1, got 0"):
        window_pairs(3, 0)
    with pytest.raises(InputError, match="reference: expected an index from 0 to 2, got 3"):
        one_to_all_pairs(3, 3)
    with pytest.raises(InputError, match=r"pairs: expected indices from 0 to 1, got \(0, 2\)"):
        name_pairs(["a", "b"], [(0, 2)])


def test_files_come_back(tmp_path: Path) -> None:
    pairs = name_pairs(["a/1.jpg", "a/2.jpg", "ü.png"], [(0, 1), (2, 0)])
    assert pairs == [("a/1.jpg", "a/2.jpg"), ("ü.png", "a/1.jpg")]
    write_pairs(tmp_path / "pairs.txt", pairs)
    assert (tmp_path / "pairs.txt").read_text("utf-8") == "a/1.jpg a/2.jpg\nü.png a/1.jpg\n"
    assert read_pairs(tmp_path / "pairs.txt") == pairs
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.txt"]


def test_reading_is_lenient_about_space_only(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("# made by hand\n\n a.jpg\tb.jpg \r\n", "utf-8")
    assert read_pairs(path) == [("a.jpg", "b.jpg")]
    path.write_text("a.jpg b.jpg\na.jpg b.jpg 0.7\n", "utf-8")
    with pytest.raises(InputError, match="expected two names a line, got 3 in line 2"):
        read_pairs(path)


def test_unreadable_and_unwritable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pairs file: expected a text file.*No such file"):
        read_pairs(tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_pairs(tmp_path / "bytes.txt")
    with pytest.raises(InputError, match="names without white space"):
        write_pairs(tmp_path / "pairs.txt", [("a.jpg", "my photo.jpg")])
    with pytest.raises(InputError, match="pairs file: expected a writable place"):
        write_pairs(tmp_path / "none" / "pairs.txt", [("a", "b")])
    assert [path.name for path in tmp_path.iterdir()] == ["bytes.txt"]
