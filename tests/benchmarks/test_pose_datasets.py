"""Readers of pose benchmarks, on rendered miniatures in each set's own layout."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.core.protocols import Protocol, ScoredFrame
from benchmarks.core.samples import Dataset, HomographyTruth, PairSample, PoseTruth
from benchmarks.core.tasks import Answered, OracleOptions
from benchmarks.datasets import (
    co3d,
    megadepth1500,
    pairs_jsonl,
    realestate10k,
    scannet1500,
    strecha,
)
from benchmarks.datasets.building import scale_intrinsics, stored_size
from benchmarks.datasets.frame_choice import choose_frames
from benchmarks.datasets.npz_files import read_npz
from benchmarks.datasets.selection import subset
from benchmarks.tasks.pose import PoseTask
from matcher.errors import DatasetError, InputError
from matcher.geometry.pose import axis_angle_to_rotation
from matcher.structures import ImageSize
from tests.benchmarks import layouts_pose as layouts
from tests.benchmarks.layouts_pose import SCENE, SEQUENCE, ViewFiles
from tests.benchmarks.miniature import MiniView, relative, render_views

READERS = (co3d, megadepth1500, pairs_jsonl, realestate10k, scannet1500, strecha)


def views() -> tuple[MiniView, ...]:
    return render_views()


def video() -> tuple[MiniView, ...]:
    return render_views(1, tuple(float(angle) for angle in range(0, 72, 6)), 60, 80)


@dataclass(frozen=True)
class Case:
    """A layout: its writer, its reader, how many pairs it has."""

    write: Callable[[Path], ViewFiles]
    read: Callable[[Path], Dataset]
    pairs: int


CASES = {
    "pairs": Case(lambda at: layouts.write_pairs_jsonl(at, views()), pairs_jsonl.read, 6),
    "scannet, LoFTR": Case(
        lambda at: layouts.write_scannet_loftr(at, views()), scannet1500.read, 6
    ),
    "scannet, RoMa": Case(
        lambda at: layouts.write_scannet_loftr(at, views(), roma=True), scannet1500.read, 6
    ),
    "scannet, SuperGlue": Case(
        lambda at: layouts.write_calibrated_pairs(
            at / "scannet_test_pairs_with_gt.txt", views(), superglue=True
        ),
        scannet1500.read,
        6,
    ),
    "scannet, glue-factory": Case(
        lambda at: layouts.write_calibrated_pairs(
            at / "pairs_calibrated.txt", views(), superglue=False
        ),
        lambda at: scannet1500.read(at / "pairs_calibrated.txt"),
        6,
    ),
    "megadepth, LoFTR": Case(
        lambda at: layouts.write_megadepth(at, views(), ("0015_0.1_0.3", "0022_0.5_0.7")),
        megadepth1500.read,
        12,
    ),
    "megadepth, glue-factory pairs": Case(
        lambda at: layouts.write_calibrated_pairs(
            at / "megadepth" / "pairs_calibrated.txt", views(), superglue=False
        ),
        lambda at: megadepth1500.read(at / "megadepth"),
        6,
    ),
    "megadepth, glue-factory views": Case(
        lambda at: layouts.write_megadepth_views(at, views()), megadepth1500.read, 6
    ),
    "strecha": Case(
        lambda at: layouts.write_strecha(at, views(), "fountain_dense"), strecha.read, 6
    ),
    "co3d, isotropic": Case(lambda at: layouts.write_co3d(at, video(), "apple"), co3d.read, 45),
    "co3d, image bounds": Case(
        lambda at: layouts.write_co3d(at, video(), "apple", "ndc_norm_image_bounds"),
        co3d.read,
        45,
    ),
    "realestate10k": Case(
        lambda at: layouts.write_realestate10k(at, video(), "0a1b"), realestate10k.read, 45
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def truth_of(sample: PairSample) -> PoseTruth:
    assert isinstance(sample.truth, PoseTruth)
    return sample.truth


def project(k: np.ndarray, points: np.ndarray) -> np.ndarray:
    image = points @ k.T
    return image[:, :2] / image[:, 2:]


def seen_points(view: MiniView, step: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) pixels and (N, 3) points in the camera's frame."""
    rows, columns = np.nonzero(view.depth)
    pixels = np.stack((columns, rows), -1)[::step].astype(np.float64)
    depth = view.depth[rows, columns][::step, None].astype(np.float64)
    rays = np.c_[pixels, np.ones(len(pixels))] @ np.linalg.inv(view.k).T
    return pixels, rays * depth


def test_truth_is_that_of_the_render(case: Case, tmp_path: Path) -> None:
    files = case.write(tmp_path)
    dataset = case.read(tmp_path)
    assert (dataset.kind, dataset.problems, len(dataset.samples)) == ("pose", (), case.pairs)
    assert not dataset.is_synthetic
    for sample in dataset.samples:
        view0, view1, truth = files[sample.image0], files[sample.image1], truth_of(sample)
        np.testing.assert_allclose(truth.k0, view0.k, atol=1e-9)
        np.testing.assert_allclose(truth.k1, view1.k, atol=1e-9)
        np.testing.assert_allclose(truth.cam1_from_cam0, relative(view0, view1), atol=1e-9)


def test_rendered_points_land_where_the_second_view_shows_them(case: Case, tmp_path: Path) -> None:
    files = case.write(tmp_path)
    for sample in case.read(tmp_path).samples[:6]:
        view0, view1, truth = files[sample.image0], files[sample.image1], truth_of(sample)
        pixels, points = seen_points(view0)
        pose0, pose1 = np.linalg.inv(view0.cam_from_world), view1.cam_from_world
        world = points @ pose0[:3, :3].T + pose0[:3, 3]
        expected = project(view1.k, world @ pose1[:3, :3].T + pose1[:3, 3])
        rays = np.c_[pixels, np.ones(len(pixels))] @ np.linalg.inv(truth.k0).T
        moved = rays * points[:, 2:] @ truth.cam1_from_cam0[:3, :3].T + truth.cam1_from_cam0[:3, 3]
        landed = project(truth.k1, moved)
        front = moved[:, 2] > 0.1
        np.testing.assert_allclose(landed[front], expected[front], atol=1e-6, rtol=1e-9)
        height, width = view1.depth.shape
        inside = front & ((landed >= 0) & (landed <= [width - 1, height - 1])).all(1)
        columns, rows = np.rint(landed[inside]).astype(int).T
        depth = view1.depth[rows, columns]
        agrees = np.abs(depth / moved[inside, 2] - 1) < 0.02
        assert agrees.mean() > 0.3  # the rest is hidden behind things; a wrong pose gives less


def metrics_of_poses(
    dataset: Dataset, protocol: Protocol, turn: np.ndarray | None = None
) -> dict[str, float]:
    """Metrics of perfect matches, or of those of cameras 1 turned on the spot."""
    task, scores = PoseTask(), []
    for sample in dataset.samples:
        sizes = [stored_size(image) for image in (sample.image0, sample.image1)]
        frame = ScoredFrame.of(protocol.resize, sizes[0], sizes[1])
        truth, claimed = truth_of(sample), sample
        if turn is not None:
            pose = truth.cam1_from_cam0.copy()
            pose[:3, :3] = turn @ pose[:3, :3]
            spoiled = dataclasses.replace(truth, cam1_from_cam0=pose)
            claimed = dataclasses.replace(sample, truth=spoiled)
        prediction = task.oracle(claimed, frame, OracleOptions(count=200))
        scores.append(task.score([Answered(sample, prediction, frame)], protocol))
    return {metric.name: metric.value for metric in task.summarise(scores, protocol).metrics}


def test_known_answers_have_known_scores(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path)
    dataset = subset(case.read(tmp_path), 3)
    protocols = next(reader for reader in READERS if dataset.name == reader.NAME).PROTOCOLS
    protocol = protocols.get("ours", next(iter(protocols.values())))
    assert metrics_of_poses(dataset, protocol)["AUC@5"] > 0.98
    turned = metrics_of_poses(dataset, protocol, axis_angle_to_rotation([0, np.radians(8), 0]))
    # All three errors are 8 degrees: the curve climbs to 1 / 3 until there, and to 1 at once.
    assert turned["AUC@20"] == pytest.approx((20 - 8 + 8 / 6) / 20, abs=0.01)
    assert turned["AUC@5"] == 0


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.NAME)
def test_absent_data_is_drawn_as_a_tree(reader: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        reader.read(tmp_path / "nowhere")
    message = str(caught.value)
    assert reader.TITLE in message
    assert reader.PUBLISHED in message
    assert "expected:" in message
    assert f"{tmp_path / 'nowhere'}/" in message


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.NAME)
def test_protocols_carry_their_names(reader: Any) -> None:
    assert reader.PROTOCOLS
    assert all(name == protocol.name for name, protocol in reader.PROTOCOLS.items())
    assert any(protocol.is_headline for protocol in reader.PROTOCOLS.values())
    assert all(0 < value.value < 100 for value in reader.PUBLISHED_VALUES)


def test_resize_rules_are_the_official_ones() -> None:
    full, upright = ImageSize(968, 1296), ImageSize(1600, 1200)
    scannet, megadepth = scannet1500.PROTOCOLS, megadepth1500.PROTOCOLS
    assert scannet["loftr"].resize.apply(full) == ImageSize(480, 640)
    assert scannet["roma"].resize.apply(full) == ImageSize(480, 643)
    assert megadepth["loftr"].resize.apply(upright) == ImageSize(840, 630)
    assert megadepth["roma"].resize.apply(upright) == ImageSize(1200, 900)
    assert megadepth["glue-factory"].resize.apply(upright) == ImageSize(1600, 1200)
    assert megadepth["xfeat"].resize.apply(ImageSize(600, 800)) == ImageSize(600, 800)
    assert pairs_jsonl.PROTOCOLS["ours"].resize.apply(full) == full


def test_an_absent_image_costs_its_own_pairs_only(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path)
    whole = case.read(tmp_path)
    lost = whole.samples[0].image1
    costs = [s for s in whole.samples if lost in (s.image0, s.image1)]
    lost.unlink()
    if whole.name == "realestate10k":  # 11 of 12 frames remain, and 10 of them are drawn
        assert len(case.read(tmp_path).samples) == 45
        return
    broken = case.read(tmp_path)
    assert len(broken.samples) == len(whole.samples) - len(costs)
    assert {name for name, _ in broken.problems} == {sample.name for sample in costs}
    assert all("no image at" in reason for _, reason in broken.problems)


# The open format.


def lines_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "pairs.jsonl").read_text().splitlines()]


def write_lines(root: Path, lines: list[Any]) -> None:
    text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    (root / "pairs.jsonl").write_text("\n".join(text) + "\n")


def test_pairs_keep_what_their_lines_say(tmp_path: Path) -> None:
    layouts.write_pairs_jsonl(tmp_path, views())
    dataset = pairs_jsonl.read(tmp_path / "pairs.jsonl")
    first = dataset.samples[0]
    assert (first.group, truth_of(first).is_metric, truth_of(first).overlap) == ("mini", True, 0.1)
    lines = lines_of(tmp_path)
    for key in ("set", "is_metric", "overlap"):
        del lines[0][key]
    write_lines(tmp_path, lines)
    first = pairs_jsonl.read(tmp_path).samples[0]
    assert (first.group, truth_of(first).is_metric, truth_of(first).overlap) == (
        "ground",
        False,
        None,
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"K0": [[1.0, 0.0], [0.0, 1.0]]}, r"line 2: K0: expected shape \(3, 3\), got \(2, 2\)"),
        ({"K1": None}, r"line 2: K1: expected shape"),
        ({"K0": "wide"}, "line 2: K0: expected numbers"),
        ({"K0": np.diag([-5.0, 5.0, 1.0]).tolist()}, "line 2: K0: expected positive focals"),
        ({"T_0to1": np.eye(3).tolist()}, r"line 2: T_0to1: expected shape \(4, 4\)"),
        ({"T_0to1": (2 * np.eye(4)).tolist()}, "line 2: T_0to1: its 3 x 3 part is no rotation"),
        ({"T_0to1": np.full((4, 4), np.nan).tolist()}, "line 2: T_0to1: expected finite"),
        ({"rot_deg": 90}, "line 2: rot_deg 90 does not fit"),
        ({"overlap": 3}, "line 2: overlap"),
        ({"depth0": 3}, "depth0: expected text, got 3"),
        ({"depth_scale": 0}, "line 2: depth_scale: expected a positive number"),
        ({"image1": "images/none.png"}, "no image at .*none.png"),
        ({"image1": None}, "image1: expected text"),
        ({"H_0to1": np.eye(3).tolist()}, "a homography in a list that began with a pose"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_goes_on(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    layouts.write_pairs_jsonl(tmp_path, views())
    lines = lines_of(tmp_path)
    lines[1].update(change)
    write_lines(tmp_path, lines)
    dataset = pairs_jsonl.read(tmp_path)
    assert (len(dataset.samples), len(dataset.problems)) == (5, 1)
    with pytest.raises(DatasetError, match=reason):
        raise DatasetError(dataset.problems[0][1])


def test_lines_that_are_no_json_and_pairs_listed_twice_are_problems(tmp_path: Path) -> None:
    layouts.write_pairs_jsonl(tmp_path, views())
    lines: list[Any] = lines_of(tmp_path)
    write_lines(tmp_path, [*lines, "{broken", "[1, 2]", "", lines[0], lines[0]])
    dataset = pairs_jsonl.read(tmp_path)
    assert len(dataset.samples) == 6
    assert [name for name, _ in dataset.problems] == [
        "line 7",
        "line 8",
        "images/0.png--images/1.png #2",
        "images/0.png--images/1.png #3",
    ]
    assert [reason.split(" (")[0] for _, reason in dataset.problems] == [
        "broken JSON",
        "expected a JSON object, got list",
        "listed twice",
        "listed twice",
    ]


def test_an_absent_depth_is_noted_and_costs_no_pair(tmp_path: Path) -> None:
    layouts.write_pairs_jsonl(tmp_path, views())
    lines = lines_of(tmp_path)
    lines[0].update(depth0="images/0.png", depth_scale=50)
    lines[1]["depth0"] = "none.png"
    write_lines(tmp_path, lines)
    dataset = pairs_jsonl.read(tmp_path)
    assert (len(dataset.samples), dataset.problems) == (6, ())
    first, second = (truth_of(sample) for sample in dataset.samples[:2])
    assert (first.depth0, first.depth_scale) == (tmp_path / "images/0.png", 50)
    assert second.depth0 is None
    assert dataset.notes == ("1 pairs name a depth that is not there: left unused",)


@pytest.mark.parametrize("text", ["", "\n\n", "{broken\n"])
def test_a_list_without_one_pair_raises(text: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(text)
    with pytest.raises(DatasetError, match="no usable pair"):
        pairs_jsonl.read(tmp_path)


def test_homographies_are_read_from_the_same_format(tmp_path: Path) -> None:
    layouts.write_pairs_jsonl(tmp_path, views())
    matrix = np.array([[1, 0.1, 3], [0, 1, -2], [0, 1e-4, 1]])
    keep = ("image0", "image1", "scene")
    lines = [{key: line[key] for key in keep} for line in lines_of(tmp_path)]
    write_lines(tmp_path, [{**line, "H_0to1": matrix.tolist()} for line in lines])
    dataset = pairs_jsonl.read(tmp_path)
    assert (dataset.kind, len(dataset.samples), dataset.samples[0].group) == (
        "homography",
        6,
        "ground",
    )
    truth = dataset.samples[0].truth
    assert isinstance(truth, HomographyTruth)
    np.testing.assert_array_equal(truth.h1_from_0, matrix)


# ScanNet-1500.


def test_scannet_says_which_intrinsics_it_used(tmp_path: Path) -> None:
    layouts.write_scannet_loftr(tmp_path, views(), roma=True)
    assert "intrinsic_color.txt" in scannet1500.read(tmp_path).notes[0]
    layouts.write_calibrated_pairs(tmp_path / "pairs_calibrated.txt", views(), superglue=False)
    assert "intrinsic_color.txt" in scannet1500.read(tmp_path).notes[0]
    assert "pairs_calibrated.txt" in scannet1500.read(tmp_path / "pairs_calibrated.txt").notes[0]
    np.savez(tmp_path / "intrinsics.npz", **{SCENE: np.diag([500.0, 500, 1])})
    dataset = scannet1500.read(tmp_path)
    assert "intrinsics.npz" in dataset.notes[0]
    assert dataset.samples[0].group == SCENE
    assert truth_of(dataset.samples[0]).k0[0, 0] == 500 * 160 / 640


@pytest.mark.parametrize("k", [np.eye(4), np.zeros(9)])
def test_scannet_intrinsics_of_a_wrong_shape_break_the_pairs_of_their_scene(
    k: np.ndarray, tmp_path: Path
) -> None:
    layouts.write_scannet_loftr(tmp_path, views())
    np.savez(tmp_path / "intrinsics.npz", **{SCENE: k})
    with pytest.raises(DatasetError, match=rf"K of {SCENE}: expected shape \(3, 3\)"):
        scannet1500.read(tmp_path)


def test_scannet_truncated_list(tmp_path: Path) -> None:
    layouts.write_scannet_loftr(tmp_path, views())
    content = (tmp_path / "test.npz").read_bytes()
    (tmp_path / "test.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match=r"test\.npz: truncated, or no npz file"):
        scannet1500.read(tmp_path)


@pytest.mark.parametrize("name", [np.zeros((6, 3), int), np.zeros((6, 4)), np.zeros(24, int)])
def test_scannet_list_of_a_wrong_shape(name: np.ndarray, tmp_path: Path) -> None:
    layouts.write_scannet_loftr(tmp_path, views())
    np.savez(tmp_path / "test.npz", name=name, rel_pose=np.zeros((6, 12)))
    with pytest.raises(DatasetError, match=r"name: expected integers \(N, 4\)"):
        scannet1500.read(tmp_path)


def edit_words(path: Path, line: int, change: dict[int, str]) -> None:
    lines = [text.split() for text in path.read_text().splitlines()]
    for at, word in change.items():
        lines[line][at : at + 1] = [word] if word else []
    path.write_text("\n".join(" ".join(words) for words in lines) + "\n")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({37: ""}, "expected 38 or 32 words, got 37"),
        ({2: "1"}, "asks for a turned photograph"),
        ({4: "wide"}, "could not convert"),
        ({6: "648.0"}, "is not for 160 x 120 pixels"),
        ({22: "7.0"}, "is no rotation"),
    ],
)
def test_superglue_lines_that_cannot_be_used(
    change: dict[int, str], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "scannet_test_pairs_with_gt.txt"
    layouts.write_calibrated_pairs(path, views(), superglue=True)
    edit_words(path, 2, change)
    dataset = scannet1500.read(tmp_path)
    assert (len(dataset.samples), len(dataset.problems)) == (5, 1)
    assert reason in dataset.problems[0][1]


# MegaDepth-1500.


def test_megadepth_names_what_is_there(tmp_path: Path) -> None:
    layouts.write_megadepth(tmp_path, views(), ("0015_0.1_0.3", "0022_0.5_0.7"))
    dataset = megadepth1500.read(tmp_path)
    assert {sample.group for sample in dataset.samples} == {"0015", "0022"}
    assert truth_of(dataset.samples[0]).overlap == 0.25
    assert dataset.notes[-1] == "lists that are not there: 0015_0.3_0.5, 0022_0.1_0.3, 0022_0.3_0.5"


def test_megadepth_rows_that_cannot_be_used(tmp_path: Path) -> None:
    layouts.write_megadepth(tmp_path, views(), ("0015_0.1_0.3",))
    path = tmp_path / "0015_0.1_0.3.npz"
    arrays = read_npz(path)
    arrays["intrinsics"][3] = np.eye(2)
    far = [((0, 4), 0.2, None), ((0, 9), 0.2, None), ((-1, 0), 0.2, None), (3, 0.2, None)]
    arrays["pair_infos"] = layouts.objects([*arrays["pair_infos"], *far])
    np.savez(path, **arrays)
    dataset = megadepth1500.read(tmp_path)
    assert len(dataset.samples) == 3
    reasons = [reason for _, reason in dataset.problems]
    assert reasons[:3] == ["intrinsics[3]: expected shape (3, 3), got (2, 2)"] * 3
    assert "no image at" in reasons[3]  # a view that the list itself leaves out
    assert all("is not ((i, j), overlap, ..)" in reason for reason in reasons[4:])
    assert len(reasons) == 7


def test_megadepth_truncated_list(tmp_path: Path) -> None:
    layouts.write_megadepth(tmp_path, views(), ("0015_0.1_0.3",))
    path = tmp_path / "0015_0.1_0.3.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"0015_0\.1_0\.3\.npz: truncated, or no npz file"):
        megadepth1500.read(tmp_path)


def test_megadepth_list_without_an_array(tmp_path: Path) -> None:
    layouts.write_megadepth(tmp_path, views(), ("0015_0.1_0.3",))
    arrays = read_npz(tmp_path / "0015_0.1_0.3.npz")
    np.savez(tmp_path / "0015_0.1_0.3.npz", poses=arrays["poses"])
    with pytest.raises(DatasetError, match="there is no 'image_paths'; it has poses"):
        megadepth1500.read(tmp_path)


class _Payload:
    """A pickle that runs a command when a careless reader opens it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_that_asks_for_more_than_data_is_refused(tmp_path: Path) -> None:
    layouts.write_megadepth(tmp_path, views(), ("0015_0.1_0.3",))
    marker = tmp_path / "executed"
    path = tmp_path / "0015_0.1_0.3.npz"
    arrays = read_npz(path)
    np.savez(path, **{**arrays, "poses": layouts.objects([_Payload(marker)])})
    with pytest.raises(DatasetError, match=r"refused, its pickle asks for .*mkdir"):
        megadepth1500.read(tmp_path)
    assert not marker.exists()
    np.load(path, allow_pickle=True)["poses"]  # the payload is live where nothing stops it
    assert marker.is_dir()


@pytest.mark.parametrize(
    "command",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
    ],
)
def test_names_close_to_what_arrays_need_are_refused_too(command: bytes, tmp_path: Path) -> None:
    path = tmp_path / "list.npz"
    np.savez(path, value=layouts.objects([None]))
    with zipfile.ZipFile(path) as archive:
        header = archive.read("value.npy").split(b"\n")[0] + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("value.npy", header + command)
    with pytest.raises(DatasetError, match="refused"):
        read_npz(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_object_arrays_of_every_age_are_read(protocol: int, tmp_path: Path) -> None:
    info = ((1, 2), np.float64(0.5), np.arange(3.0))
    values = layouts.objects([None, "a/ä.jpg", np.eye(3), info, b"\xff"])
    path = tmp_path / "list.npz"
    np.savez(path, value=values)
    with zipfile.ZipFile(path) as archive:
        header = archive.read("value.npy").split(b"\n")[0] + b"\n"
    body = pickle.dumps(values, protocol=protocol)
    if protocol < 4:  # where no length counts the name: written by NumPy 1
        body = body.replace(b"numpy._core", b"numpy.core")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("value.npy", header + body)
    read = read_npz(path)["value"]
    assert (read[0], read[1], read[4]) == (None, "a/ä.jpg", b"\xff")
    np.testing.assert_array_equal(read[2], np.eye(3))
    assert read[3][:2] == ((1, 2), 0.5)
    np.testing.assert_array_equal(read[3][2], [0, 1, 2])


# Strecha.


def test_strecha_takes_cameras_from_another_folder_and_a_camera_of_full_size(
    tmp_path: Path,
) -> None:
    files = layouts.write_strecha(tmp_path, views(), "herzjesu_dense")
    cameras = tmp_path / "herzjesu_dense" / "cameras"
    cameras.mkdir()
    full = ImageSize(1200, 1600)
    for image, view in files.items():
        path = image.with_name(f"{image.name}.camera")
        rows = path.read_text().splitlines()
        rows[:3] = [layouts.words(row) for row in layouts.k_for(view, full)]
        rows[8] = "1600 1200"
        (cameras / path.name).write_text("\n".join(rows) + "\n")
        path.unlink()
    dataset = strecha.read(tmp_path)
    assert [sample.group for sample in dataset.samples] == ["herzjesu_dense"] * 6
    for sample in dataset.samples:
        np.testing.assert_allclose(truth_of(sample).k0, files[sample.image0].k, atol=1e-9)
        assert truth_of(sample).is_metric
    assert len(strecha.read(tmp_path / "herzjesu_dense").samples) == 6


def test_strecha_cameras_that_cannot_be_read(tmp_path: Path) -> None:
    layouts.write_strecha(tmp_path, views(), "fountain_dense")
    folder = tmp_path / "fountain_dense" / "urd"
    camera = folder / "0000.png.camera"
    rows = camera.read_text().splitlines()
    camera.write_text("\n".join(rows[:6]))
    dataset = strecha.read(tmp_path)
    assert (len(dataset.samples), len(dataset.problems)) == (3, 3)
    assert "expected 9 lines, got 6" in dataset.problems[0][1]
    camera.write_text("\n".join([*rows[:8], "1600 900"]))
    assert "K is for 1600 x 900 pixels" in strecha.read(tmp_path).problems[0][1]


def test_strecha_camera_of_the_official_form(tmp_path: Path) -> None:
    # A camera at (0, 0, -2) looking along the world's z, turned by 90 degrees about it.
    path = tmp_path / "0000.png.camera"
    path.write_text(
        "2759.48 0 1520.69 \n0 2764.16 1006.81 \n0 0 1 \n0 0 0\n"
        "0 -1 0 \n1 0 0 \n0 0 1 \n0 0 -2 \n3072 2048\n"
    )
    k, pose, size = strecha.read_camera(path)
    assert size == ImageSize(2048, 3072)
    np.testing.assert_array_equal(k, [[2759.48, 0, 1520.69], [0, 2764.16, 1006.81], [0, 0, 1]])
    # The camera's x axis is (0, 1, 0) in the world: a point there is to the right.
    np.testing.assert_allclose(pose @ [0, 1, 0, 1], [1, 0, 2, 1])


# CO3Dv2.


def test_co3d_camera_by_hand() -> None:
    # PyTorch3D: x to the left, y up. A point left of and above the axis, 4 away, focal 2 and
    # units of half the short side (50) is at 100 * 1 / 4 = 25 pixels from the middle (75, 50).
    frame = co3d.CO3DFrame(
        1,
        Path("unused"),
        [100, 150],
        {
            "R": np.eye(3).tolist(),
            "T": [0.0, 0.0, 0.0],
            "focal_length": [2.0, 2.0],
            "principal_point": [0.0, 0.0],
            "intrinsics_format": "ndc_isotropic",
        },
    )
    k, pose = co3d.annotated_camera(frame)
    pixel = project(k, (pose[:3, :3] @ [1.0, 1.0, 4.0])[None])[0]
    np.testing.assert_allclose(pixel + 0.5, [75 - 25, 50 - 25])
    shifted = {**frame.viewpoint, "principal_point": [0.2, 0.0]}
    k, _ = co3d.annotated_camera(co3d.CO3DFrame(1, Path("unused"), [100, 150], shifted))
    assert k[0, 2] + 0.5 == 75 - 10  # its axes run to the left
    wide = {**frame.viewpoint, "intrinsics_format": "ndc_norm_image_bounds"}
    k, _ = co3d.annotated_camera(co3d.CO3DFrame(1, Path("unused"), [100, 150], wide))
    assert (k[0, 0], k[1, 1]) == (150, 100)


def test_co3d_draws_the_same_ten_frames_always(tmp_path: Path) -> None:
    layouts.write_co3d(tmp_path, video(), "hydrant")
    alone = co3d.read(tmp_path)
    layouts.write_co3d(tmp_path, video(), "apple")
    layouts.write_co3d(tmp_path, video(), "kite")
    both = co3d.read(tmp_path)
    drawn = [sample.name for sample in both.samples if sample.group == "hydrant"]
    assert drawn == [sample.name for sample in alone.samples]
    assert {sample.group for sample in both.samples} == {"apple", "hydrant"}
    assert any("left out: kite" in note for note in both.notes)
    frames = choose_frames(f"hydrant/{SEQUENCE}", range(1, 13), 10)
    assert any(
        note
        == f"hydrant (set_lists_fewview_dev.json, test): {SEQUENCE} " + ",".join(map(str, frames))
        for note in alone.notes
    )
    assert not alone.samples[0].name.startswith("training")


def test_co3d_broken_categories_and_frames_are_counted(tmp_path: Path) -> None:
    for category in ("apple", "bench", "cup"):
        layouts.write_co3d(tmp_path, video(), category)
    path = tmp_path / "apple" / "frame_annotations.jgz"
    path.write_bytes(path.read_bytes()[:-100])
    path = tmp_path / "bench" / "frame_annotations.jgz"
    with gzip.open(path, "rt") as stream:
        entries = json.load(stream)
    for entry in entries[:-1]:
        entry["viewpoint"]["intrinsics_format"] = "screen"
    with gzip.open(path, "wt") as stream:
        json.dump(entries, stream)
    dataset = co3d.read(tmp_path)
    assert {sample.group for sample in dataset.samples} == {"cup"}
    reasons = dict(dataset.problems)
    assert "truncated" in reasons["apple"]
    assert len(reasons) == 46
    assert sum("intrinsics_format 'screen'" in reason for reason in reasons.values()) == 45


def test_co3d_short_sequences_and_missing_lists(tmp_path: Path) -> None:
    layouts.write_co3d(tmp_path, video()[:9], "apple")
    with pytest.raises(DatasetError, match="no usable pair"):
        co3d.read(tmp_path)
    layouts.write_co3d(tmp_path, video(), "cup")
    assert any("1 sequences with fewer frames left out" in n for n in co3d.read(tmp_path).notes)
    (tmp_path / "apple/set_lists/set_lists_fewview_dev.json").unlink()
    assert [name for name, _ in co3d.read(tmp_path).problems] == ["apple"]


# RealEstate10K.


def test_realestate10k_says_what_remained(tmp_path: Path) -> None:
    for sequence in ("aaaa", "bbbb", "cccc"):
        layouts.write_realestate10k(tmp_path, video(), sequence)
    for image in list((tmp_path / "frames/bbbb").iterdir())[:3]:
        image.unlink()
    (tmp_path / "test/cccc.txt").unlink()
    (tmp_path / "re10k_test_1800.txt").write_text("aaaa\ntest/bbbb.txt\ncccc\ndddd\n")
    dataset = realestate10k.read(tmp_path)
    assert dataset.notes[0].startswith("1 of 4 sequences remained; 3 have fewer")
    assert {sample.group for sample in dataset.samples} == {"aaaa"}


def test_realestate10k_lines_that_cannot_be_used(tmp_path: Path) -> None:
    layouts.write_realestate10k(tmp_path, video(), "aaaa")
    path = tmp_path / "test/aaaa.txt"
    whole = realestate10k.read(tmp_path)
    at = int(whole.samples[0].image0.stem)
    lines = path.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith(str(at)))
    path.write_text("\n".join([*lines[:row], lines[row][:60], *lines[row + 1 :]]))
    broken = realestate10k.read(tmp_path)
    assert (len(broken.samples), len(broken.problems)) == (36, 9)
    assert "expected 19 numbers" in broken.problems[0][1]
    path.write_text("\n".join([*lines[:row], *lines[row + 1 :]]))
    assert f"no line for timestamp {at}" in realestate10k.read(tmp_path).problems[0][1]


# What all of them share.


def test_scaled_intrinsics_keep_rays() -> None:
    k = np.array([[500, 0, 310], [0, 505, 250], [0, 0, 1.0]])
    half = scale_intrinsics(k, ImageSize(480, 640), ImageSize(240, 320))
    ray = np.array([[0.1, -0.2, 1.0]])
    np.testing.assert_allclose(project(half, ray), (project(k, ray) + 0.5) / 2 - 0.5)
    with pytest.raises(DatasetError, match="K is for 640 x 480 pixels, the image has 480 x 640"):
        scale_intrinsics(k, ImageSize(480, 640), ImageSize(640, 480))


def test_subset_is_drawn_from_the_seed_in_order(tmp_path: Path) -> None:
    layouts.write_pairs_jsonl(tmp_path, views())
    dataset = pairs_jsonl.read(tmp_path)
    names = [sample.name for sample in dataset.samples]
    drawn = [sample.name for sample in subset(dataset, 3, seed=4).samples]
    assert drawn == [names[i] for i in np.sort(np.random.default_rng(4).permutation(6)[:3])]
    assert subset(dataset, 99).samples == dataset.samples
    assert subset(dataset, 3).notes[-1] == "3 of 6 drawn at random, seed 0"
    far = subset(dataset, min_overlap=0.25)  # overlaps are 0.1 (i + j)
    assert [truth_of(sample).overlap for sample in far.samples] == pytest.approx(
        [0.3, 0.3, 0.4, 0.5]
    )
    assert far.notes[-1] == "2 pairs with an overlap below 0.25 left out"
    with pytest.raises(InputError, match="count"):
        subset(dataset, 0)
    with pytest.raises(DatasetError, match="no pair is left of 6"):
        subset(dataset, min_overlap=0.9)


def test_subset_draws_broken_pairs_too(tmp_path: Path) -> None:
    layouts.write_pairs_jsonl(tmp_path, views())
    write_lines(tmp_path, [*lines_of(tmp_path), *["{broken"] * 6])
    dataset = pairs_jsonl.read(tmp_path)
    sizes = {
        (len(part.samples), len(part.problems))
        for part in (subset(dataset, 6, seed=seed) for seed in range(8))
    }
    assert all(sum(pair) == 6 for pair in sizes)
    assert len(sizes) > 1


def test_development_pairs_are_read_whole(shared_dir: Path) -> None:
    dataset = pairs_jsonl.read(shared_dir / "data" / "dev")
    assert (len(dataset.samples), dataset.problems) == (340, ())
    assert len(subset(dataset, min_overlap=0.1).samples) == 323
