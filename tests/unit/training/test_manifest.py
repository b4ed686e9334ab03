"""The training manifest: what is read, what is written, and how a broken line is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matcher.errors import DatasetError, InputError
from matcher.structures import Camera, Pose
from matcher.training.manifest import (
    CorrespondencePair,
    PosedView,
    read_correspondences,
    read_pairs,
    read_views,
    write_correspondences,
    write_pairs,
    write_views,
)

K = [[500.0, 0.0, 319.5], [0.0, 510.0, 239.5], [0.0, 0.0, 1.0]]
QUARTER_TURN = [[0.0, -1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0], [0, 0, 0, 1]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that holds the files a manifest names (their content is not read)."""
    folder = tmp_path / "office"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "a.png", "ab.npz"):
        (folder / name).write_bytes(b"x")
    return folder


def view_record(**changes: Any) -> dict[str, Any]:
    record = {
        "image": "a.jpg",
        "K": K,
        "cam_from_world": QUARTER_TURN,
        "depth": "a.png",
        "depth_scale": 1000.0,
    }
    return {**record, **changes}


def write_lines(folder: Path, *lines: Any) -> Path:
    manifest = folder / "images.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    manifest.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return manifest


def test_views_are_read_relative_to_the_manifest(place: Path) -> None:
    manifest = write_lines(place, view_record(), "", view_record(depth=None, group="hall"))
    first, second = read_views(manifest)
    assert first.image == place / "a.jpg"
    assert first.depth == place / "a.png"
    assert first.depth_scale == 1000.0
    assert first.group == "office"
    np.testing.assert_array_equal(first.camera.matrix, K)
    np.testing.assert_array_equal(first.cam_from_world.matrix, QUARTER_TURN)
    assert (second.depth, second.depth_scale, second.group) == (None, None, "hall")


def test_views_survive_a_round_trip_to_another_folder(place: Path, tmp_path: Path) -> None:
    views = read_views(write_lines(place, view_record()))
    views.append(PosedView(place / "b.jpg", Camera.from_matrix(K), Pose.identity(), "hall"))
    written = tmp_path / "views.jsonl"
    write_views(written, views)
    first, second = read_views(written)
    assert first.image.resolve() == (place / "a.jpg").resolve()
    assert (first.depth_scale, first.group, second.group) == (1000.0, "office", "hall")
    assert second.depth is None
    np.testing.assert_array_equal(first.cam_from_world.matrix, QUARTER_TURN)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["views.jsonl"]


def test_pairs_survive_a_round_trip(place: Path) -> None:
    camera = Camera.from_matrix(K)
    turned = CorrespondencePair(
        image0=place / "a.jpg",
        image1=place / "b.jpg",
        camera0=camera,
        camera1=camera,
        correspondences=place / "ab.npz",
        group="hall",
        cam1_from_cam0=Pose.from_matrix(QUARTER_TURN),
    )
    unposed = CorrespondencePair(
        place / "b.jpg", place / "a.jpg", camera, camera, place / "ab.npz", "hall"
    )
    write_pairs(place / "pairs.jsonl", [turned, unposed])
    first, second = read_pairs(place / "pairs.jsonl")
    assert (first.image0.name, first.image1.name) == ("a.jpg", "b.jpg")
    assert first.correspondences.resolve() == (place / "ab.npz").resolve()
    assert first.group == "hall"
    assert first.rotation_degrees == pytest.approx(90.0)
    assert second.cam1_from_cam0 is None
    assert second.rotation_degrees is None
    np.testing.assert_array_equal(first.camera1.matrix, K)


def test_a_failed_write_leaves_the_old_manifest(place: Path) -> None:
    manifest = write_lines(place, view_record())
    before = manifest.read_bytes()

    def broken() -> Any:
        yield read_views(manifest)[0]
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write_views(manifest, broken())
    assert manifest.read_bytes() == before
    assert not list(place.glob(".*.tmp"))


def test_an_empty_manifest_holds_no_views(place: Path) -> None:
    assert read_views(write_lines(place)) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ("[1]", "expected a JSON object, got list"),
        (view_record(image="gone.jpg"), "image: no such file"),
        (view_record(image=3), "image: expected a string, got 3"),
        (view_record(depth="gone.png"), "depth: no such file"),
        (view_record(depth_scale=-1.0), "depth_scale: expected a positive finite number, got -1.0"),
        (view_record(depth_scale=0), "depth_scale: expected a positive finite number"),
        (view_record(depth_scale=float("nan")), "depth_scale: expected a positive finite number"),
        (view_record(depth_scale=None), "depth_scale: expected a number, got None"),
        (view_record(depth_scale=True), "depth_scale: expected a number, got True"),
        (view_record(K=None), "K: expected 3 x 3 numbers"),
        (view_record(K="x"), "K: expected 3 x 3 numbers"),
        (view_record(K=[[1, 2], [3]]), "K: expected 3 x 3 numbers"),
        (view_record(K=np.full((3, 3), np.nan).tolist()), "K: expected finite numbers"),
        (view_record(K=np.diag([-5.0, 5.0, 1.0]).tolist()), "positive number of pixels"),
        (view_record(K=np.ones((3, 3)).tolist()), "camera matrix: expected"),
        (view_record(cam_from_world=np.eye(3).tolist()), "cam_from_world: expected 4 x 4 numbers"),
        (view_record(cam_from_world=(2 * np.eye(4)).tolist()), "expected the last row 0 0 0 1"),
        (
            view_record(cam_from_world=np.diag([2.0, 1.0, 1.0, 1.0]).tolist()),
            "pose rotation: expected an orthonormal matrix",
        ),
        (view_record(group=7), "group: expected a string, got 7"),
    ],
)
def test_a_broken_line_is_named_in_one_line(place: Path, line: Any, problem: str) -> None:
    manifest = write_lines(place, view_record(), line)
    with pytest.raises(DatasetError) as caught:
        read_views(manifest)
    message = str(caught.value)
    assert message.startswith(f"{manifest}:2: ")
    assert problem in message
    assert "\n" not in message


def test_a_pair_without_its_correspondences_is_named(place: Path) -> None:
    record = {"image0": "a.jpg", "image1": "b.jpg", "K0": K, "K1": K, "correspondences": "no.npz"}
    with pytest.raises(DatasetError, match=r"images.jsonl:1: correspondences: no such file"):
        read_pairs(write_lines(place, record))


def test_a_missing_or_binary_manifest_is_named(place: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.jsonl: cannot read the manifest"):
        read_views(place / "none.jsonl")
    (place / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"bytes\.jsonl: cannot read the manifest"):
        read_views(place / "bytes.jsonl")


def test_depth_and_its_scale_come_together() -> None:
    with pytest.raises(InputError, match="depth_scale"):
        PosedView(Path("a"), Camera.from_matrix(K), Pose.identity(), "hall", depth=Path("d"))


def test_correspondences_survive_a_round_trip(tmp_path: Path) -> None:
    keypoints0 = np.array([[0.0, 1.5], [639.25, 2.0]])
    write_correspondences(tmp_path / "c.npz", keypoints0, keypoints0 + 1)
    read0, read1 = read_correspondences(tmp_path / "c.npz")
    assert read0.dtype == read1.dtype == np.float32
    np.testing.assert_array_equal(read0, keypoints0)
    np.testing.assert_array_equal(read1, keypoints0 + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]


@pytest.mark.parametrize(
    ("keypoints1", "problem"),
    [
        (np.zeros((3, 2)), "expected two arrays of shape"),
        (np.zeros((2, 3)), "expected two arrays of shape"),
        (np.full((2, 2), np.nan), "expected finite pixels"),
    ],
)
def test_malformed_correspondences_are_named(
    tmp_path: Path, keypoints1: np.ndarray, problem: str
) -> None:
    write_correspondences(tmp_path / "c.npz", np.zeros((2, 2)), keypoints1)
    with pytest.raises(DatasetError, match=problem):
        read_correspondences(tmp_path / "c.npz")


def test_unreadable_correspondences_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone\.npz: cannot read correspondences"):
        read_correspondences(tmp_path / "gone.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DatasetError, match=r"text\.npz: cannot read correspondences"):
        read_correspondences(tmp_path / "text.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04cut")
    with pytest.raises(DatasetError, match=r"cut\.npz: cannot read correspondences"):
        read_correspondences(tmp_path / "cut.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(DatasetError, match=r"other\.npz: cannot read correspondences"):
        read_correspondences(tmp_path / "other.npz")
    np.save(tmp_path / "array.npy", np.zeros((2, 2)))
    with pytest.raises(DatasetError, match=r"array\.npy: cannot read correspondences"):
        read_correspondences(tmp_path / "array.npy")


def test_the_shared_rgbd_manifest_reads_as_it_is(shared_dir: Path) -> None:
    manifest = shared_dir / "data" / "train_rgbd" / "images.jsonl"
    if not manifest.is_file():
        pytest.skip("the RGB-D training frames are absent")
    views = read_views(manifest)
    assert len(views) == 94
    assert {view.group for view in views} == {"train_rgbd"}
    assert {view.depth_scale for view in views} == {1000.0}
