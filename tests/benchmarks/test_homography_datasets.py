"""HPatches, EVD and WxBS in their official layouts, warped and rendered, with known scores."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.core.protocols import Protocol, ResizeRule, ScoredFrame
from benchmarks.core.runner import cache_path, evaluate, export, open_cache
from benchmarks.core.samples import CorrespondenceTruth, Dataset, HomographyTruth
from benchmarks.core.tasks import Answered, OracleOptions, Summary, Task
from benchmarks.datasets import evd, hpatches, wxbs
from benchmarks.methods import build_method
from benchmarks.selftest import run_selftest
from benchmarks.tasks.correspondences import CorrespondencesTask
from benchmarks.tasks.homography import HomographyTask
from matcher.errors import DatasetError
from matcher.geometry.camera import project, resize_camera, unproject
from matcher.images import read_image
from matcher.structures import Camera, FloatArray, ImageSize, Pose
from tests.benchmarks.miniature import relative, render_views

pytestmark = pytest.mark.slow  # together more than a few seconds

SMALL, SIZE = ImageSize(120, 160), ImageSize(240, 320)
FRAME_AS_STORED = ScoredFrame(SIZE, SIZE, SIZE, SIZE)
SEQUENCES = ("i_dome", "v_gate", "v_wall")
LEFT_OUT = ("i_dc", "v_talent")


def photograph(index: int = 0) -> npt.NDArray[np.uint8]:
    image = render_views(1, (0.0, 8.0))[index].image
    return np.asarray(cv2.resize(image, (SIZE.width, SIZE.height), interpolation=cv2.INTER_CUBIC))


def write_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]))


def warped(homography: FloatArray) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.warpPerspective(photograph(), homography, (SIZE.width, SIZE.height)))


def homography_number(number: int) -> FloatArray:
    """A growing turn, stretch and tilt."""
    tilt = 1e-4 * number
    matrix = np.array(
        [[1 + 0.04 * number, 0.03 * number, -4.0 * number], [-0.02 * number, 1, 6.0], [tilt, 0, 1]]
    )
    return matrix.astype(np.float64)


def write_matrix(path: Path, matrix: FloatArray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Blanks before and between, as in the release.
    path.write_text("".join("  " + "  ".join(f"{x:.10g}" for x in row) + "\n" for row in matrix))


def write_hpatches(root: Path, offset: FloatArray | None = None) -> Path:
    """``offset`` shifts the true homographies against the photographs."""
    offset = np.eye(3) if offset is None else offset
    for name in SEQUENCES + LEFT_OUT:
        folder = root / "hpatches-sequences-release" / name
        write_image(folder / "1.ppm", photograph())
        for number in range(2, 7):
            if name.startswith("i_"):
                matrix = np.eye(3)
                image = (photograph() * (1 - 0.1 * number)).astype(np.uint8)
            else:
                matrix = homography_number(number)
                image = warped(matrix)
            write_image(folder / f"{number}.ppm", image)
            write_matrix(folder / f"H_1_{number}", offset @ matrix)
    return root


def write_evd(root: Path, offset: FloatArray | None = None) -> Path:
    offset = np.eye(3) if offset is None else offset
    for number, name in enumerate(("adam", "cafe", "grand"), start=3):
        matrix = homography_number(number)
        write_image(root / "EVD" / "1" / f"{name}.png", photograph())
        write_image(root / "EVD" / "2" / f"{name}.png", warped(matrix))
        write_matrix(root / "EVD" / "h" / f"{name}.txt", offset @ matrix)
    return root


def marks(count: int = 30) -> FloatArray:
    """(count, 4) pixels of one surface point in both views, spread over the image."""
    view0, view1 = render_views(1, (0.0, 8.0))
    small = ImageSize(*view0.depth.shape)
    camera = Camera.from_matrix(view0.k, small)
    y, x = np.nonzero(view0.depth > 0)
    pixels = np.stack([x, y], axis=1).astype(np.float64)
    points = unproject(pixels, view0.depth[y, x].astype(np.float64), camera)
    large = resize_camera(camera, SIZE)
    pixels0 = project(points, large)
    pixels1 = project(Pose.from_matrix(relative(view0, view1)).transform(points), large)
    inside = (pixels1 > 0).all(axis=1) & (pixels1 < (SIZE.width, SIZE.height)).all(axis=1)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(inside))[:count]
    return np.concatenate([pixels0[rows], pixels1[rows]], axis=1)


PAIRS = ("WGABS/kn-church", "WGLBS/dh", "WLABS/kyiv", "WGALBS/kyiv_dolltheater2", "WGBS/petrzin")


def write_wxbs(root: Path, shifted_px: float = 0.0) -> Path:
    """Every other mark of photograph 1 lies ``shifted_px`` too low."""
    rows = marks()
    rows[::2, 3] += shifted_px
    for name in PAIRS:
        folder = root / "WxBS_v1.1" / name
        write_image(folder / "01.png", photograph(0))
        write_image(folder / "02.png", photograph(1))
        np.savetxt(folder / "corrs.txt", rows)
        np.savetxt(folder / "crossval_errors.txt", np.zeros(len(rows)))
    return root


WRITERS: dict[str, Callable[[Path], Path]] = {
    "hpatches": write_hpatches,
    "evd": write_evd,
    "wxbs": write_wxbs,
}
READERS: dict[str, ModuleType] = {"hpatches": hpatches, "evd": evd, "wxbs": wxbs}
RELEASES = {"hpatches": "hpatches-sequences-release", "evd": "EVD", "wxbs": "WxBS_v1.1"}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("homographies")
    for name, write in WRITERS.items():
        write(root / name)
    return root


@pytest.fixture
def copied(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "sets"))


def task_of(dataset: Dataset) -> Task:
    return CorrespondencesTask() if dataset.kind == "correspondences" else HomographyTask()


def answer_with(
    asked: Dataset, known: Dataset, protocol: Protocol, options: OracleOptions | None = None
) -> Summary:
    """Score the perfect answers to the data set ``known`` as answers to ``asked``."""
    task = task_of(asked)
    frame = ScoredFrame.of(protocol.resize, SIZE, SIZE)
    scores = [
        task.score(
            [Answered(one, task.oracle(other, frame, options or OracleOptions()), frame)], protocol
        )
        for one, other in zip(asked.samples, known.samples, strict=True)
    ]
    return task.summarise(scores, protocol)


def run_sift(dataset: Dataset, protocol: Protocol, folder: Path) -> Summary:
    method = build_method("sift")
    path = cache_path(folder, dataset, method.info, protocol.resize)
    with open_cache(path, dataset, method.info, protocol.resize) as cache:
        export(dataset, method, protocol.resize, cache)
        scores, _ = evaluate(dataset, cache, task_of(dataset), protocol)
    return task_of(dataset).summarise(scores, protocol)


def value(summary: Summary, name: str) -> float:
    return next(metric.value for metric in summary.metrics if metric.name == name)


def test_hpatches_lists_five_pairs_a_sequence_and_drops_what_is_custom(pristine: Path) -> None:
    dataset = hpatches.read(pristine / "hpatches")
    names = [sample.name for sample in dataset.samples]
    assert names == [f"{sequence}/1_{k}" for sequence in SEQUENCES for k in range(2, 7)]
    assert dataset.problems == ()
    assert [sample.group for sample in dataset.samples] == ["illumination"] * 5 + ["viewpoint"] * 10
    assert any("3 of 108 sequences" in note for note in dataset.notes)
    assert any(note.startswith("2 of the 8 sequences") for note in dataset.notes)
    truth = dataset.samples[-1].truth
    assert isinstance(truth, HomographyTruth)
    assert truth.sequence_kind == "viewpoint"
    np.testing.assert_allclose(truth.h1_from_0, homography_number(6), rtol=1e-9)
    assert dataset.samples[-1].image1.name == "6.ppm"
    assert set(hpatches.PROTOCOLS) == {"ours", "glue-factory", "loftr"}


def test_evd_pairs_the_files_of_one_name(pristine: Path) -> None:
    dataset = evd.read(pristine / "evd")
    assert [sample.name for sample in dataset.samples] == ["adam", "cafe", "grand"]
    assert dataset.notes == ("3 of 15 pairs are there",)
    truth = dataset.samples[1].truth
    assert isinstance(truth, HomographyTruth)
    np.testing.assert_allclose(truth.h1_from_0, homography_number(4), rtol=1e-9)
    assert [p.parent.name for p in (dataset.samples[1].image0, dataset.samples[1].image1)] == [
        "1",
        "2",
    ]


def test_wxbs_leaves_the_validation_pairs_out_and_says_so(pristine: Path) -> None:
    dataset = wxbs.read(pristine / "wxbs")
    assert [sample.name for sample in dataset.samples] == list(PAIRS[:3])
    assert [sample.group for sample in dataset.samples] == ["WGABS", "WGLBS", "WLABS"]
    assert any("kyiv_dolltheater2, petrzin" in note for note in dataset.notes)
    assert any("3 of 32" in note for note in dataset.notes)
    truth = dataset.samples[0].truth
    assert isinstance(truth, CorrespondenceTruth)
    np.testing.assert_allclose(truth.keypoints0, marks()[:, :2])
    np.testing.assert_allclose(truth.keypoints1, marks()[:, 2:])


@pytest.mark.parametrize("name", sorted(READERS))
def test_release_folder_or_its_parent_is_the_root(pristine: Path, name: str) -> None:
    from_parent = READERS[name].read(pristine / name)
    itself = READERS[name].read(pristine / name / RELEASES[name])
    assert [s.image1 for s in from_parent.samples] == [s.image1 for s in itself.samples]


@pytest.mark.parametrize(
    ("name", "protocol"),
    [(name, protocol) for name in ("hpatches", "evd") for protocol in READERS[name].PROTOCOLS],
)
def test_perfect_matches_score_one_and_shuffled_ones_nothing(
    pristine: Path, name: str, protocol: str
) -> None:
    dataset = READERS[name].read(pristine / name)
    few = Dataset(name, name, dataset.samples[-3:], dataset.kind, dataset.root)
    result = run_selftest(few, HomographyTask(), READERS[name].PROTOCOLS[protocol])
    assert result.passed, result
    assert result.cases[0].value > 0.999


def test_homographies_two_pixels_off_score_what_two_pixels_score(
    pristine: Path, tmp_path: Path
) -> None:
    right = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    truth, off = (
        hpatches.read(pristine / "hpatches"),
        hpatches.read(write_hpatches(tmp_path, right)),
    )
    for name in ("ours", "glue-factory"):
        # 2 stored pixels are 4 at a short side of 480. 15 equal errors e: the curve is straight
        # up to (e, 1/15), then flat at 1.
        found = answer_with(off, truth, hpatches.PROTOCOLS[name])
        assert value(found, "AUC@3") == pytest.approx(0.0, abs=1e-9)
        assert value(found, "AUC@5") == pytest.approx((4 / 30 + 1) / 5, abs=1e-3)
    found = answer_with(off, truth, hpatches.PROTOCOLS["loftr"])
    assert value(found, "AUC@10") == pytest.approx((4 / 30 + 6) / 10, abs=1e-3)
    assert value(found, "MHA@5") == 1.0
    assert value(found, "MHA@3") == 0.0
    found = answer_with(
        evd.read(write_evd(tmp_path, right)), evd.read(pristine / "evd"), evd.PROTOCOLS["evd"]
    )
    # Of 1, 1.39, 1.95, 2.72 ... 20 px seven are larger than 2 px.
    assert value(found, "mAA") == pytest.approx(0.7)


def test_wxbs_counts_the_marks_near_the_epipolar_lines(pristine: Path, tmp_path: Path) -> None:
    protocol = wxbs.PROTOCOLS["wxbs"]
    truth = wxbs.read(pristine / "wxbs")
    # No distance is exactly 0, the first of the eleven thresholds.
    assert value(answer_with(truth, truth, protocol), "mAA@10px") == pytest.approx(10 / 11)
    # The cameras move sideways: half of the marks lie off their lines.
    low = wxbs.read(write_wxbs(tmp_path, 60.0))
    found = answer_with(low, truth, protocol)
    assert value(found, "mAA@10px") == pytest.approx(5 / 11)
    assert set(found.by_group) == {"WGABS", "WGLBS", "WLABS"}
    shuffled = answer_with(truth, truth, protocol, OracleOptions(shuffled=True))
    assert value(shuffled, "mAA@10px") < 0.2


def test_sift_solves_the_miniatures_from_photographs_to_table(
    pristine: Path, tmp_path: Path
) -> None:
    # Through files, cache and estimator: a homography read the wrong way round would score 0.
    planes = hpatches.read(pristine / "hpatches")
    assert value(run_sift(planes, hpatches.PROTOCOLS["ours"], tmp_path), "AUC@5") > 0.8
    tilted = run_sift(evd.read(pristine / "evd"), evd.PROTOCOLS["evd"], tmp_path)
    assert value(tilted, "mAA") > 0.8
    marked = wxbs.read(pristine / "wxbs")
    assert value(run_sift(marked, wxbs.PROTOCOLS["wxbs"], tmp_path), "mAA@10px") > 0.6


@pytest.mark.parametrize("name", sorted(READERS))
def test_missing_data_prints_the_tree_and_the_place(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError) as caught:
        READERS[name].read(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert RELEASES[name] in message
    assert READERS[name].PUBLISHED in message


@pytest.mark.parametrize(
    ("name", "broken", "pair"),
    [
        ("hpatches", "v_gate/H_1_3", "v_gate/1_3"),
        ("evd", "h/cafe.txt", "cafe"),
        ("wxbs", "WGLBS/dh/corrs.txt", "WGLBS/dh"),
    ],
)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{row}\n0 1 x\n{row}\n", ":2: could not convert"),
        ("{row}\n0 1\n", ":2: expected"),
        ("{row}\n{row} 5\n", ":2: expected"),
        ("{row}\n{row}\nnan {row}", ":3: expected"),
        ("# {row}\n\n", "expected"),
        ("", "expected"),
        (None, "no such file"),
    ],
)
def test_broken_truth_is_named_with_file_and_line_and_costs_one_pair(
    copied: Path, name: str, broken: str, pair: str, text: str | None, reason: str
) -> None:
    path = copied / name / RELEASES[name] / broken
    if text is None:
        path.unlink()
    else:
        path.write_text(text.format(row="1 0 0 0" if name == "wxbs" else "1 0 0"))
    before = len(READERS[name].read(copied / name).samples)
    ((failed, why),) = READERS[name].read(copied / name).problems
    assert failed == pair
    assert str(path) in why
    assert reason in why
    assert "\n" not in why
    assert before == {"hpatches": 14, "evd": 2, "wxbs": 2}[name]


@pytest.mark.parametrize(
    ("name", "image", "pairs"),
    [
        ("hpatches", "v_wall/4.ppm", ["v_wall/1_4"]),
        ("hpatches", "v_wall/1.ppm", [f"v_wall/1_{number}" for number in range(2, 7)]),
        ("evd", "1/grand.png", ["grand"]),
        ("wxbs", "WLABS/kyiv/02.png", ["WLABS/kyiv"]),
    ],
)
def test_absent_photograph_is_a_failure_of_its_pairs(
    copied: Path, name: str, image: str, pairs: list[str]
) -> None:
    path = copied / name / RELEASES[name] / image
    path.unlink()
    dataset = READERS[name].read(copied / name)
    assert [failed for failed, _ in dataset.problems] == pairs
    assert all(str(path) in why for _, why in dataset.problems)


def test_photographs_of_the_miniature_are_what_the_runner_reads(pristine: Path) -> None:
    sample = hpatches.read(pristine / "hpatches").samples[0]
    np.testing.assert_array_equal(read_image(sample.image0), photograph())
    assert ResizeRule().apply(SIZE) == FRAME_AS_STORED.resized0
