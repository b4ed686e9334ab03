"""Every mistake is one line on standard error and exit status 2; no file is left behind."""

from __future__ import annotations

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from matcher import CheckpointError, InputError, Matcher, PairOptions
from matcher.checkpoints import CheckpointInfo
from matcher.model import ModelConfig, TwoViewNetwork


@pytest.fixture
def refused(widebase, photographs, tiny_checkpoint, tmp_path):
    """Runs a verb that must be refused, and gives the one line it says."""

    def run(*arguments, images=photographs, model=tiny_checkpoint, verb="match"):
        before = sorted(tmp_path.rglob("*"))
        result = widebase(verb, *images, "--model", model, "--json", *arguments)
        assert result.status == 2
        assert result.out == ""
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
        assert "Traceback" not in result.err
        assert sorted(tmp_path.rglob("*")) == before
        return result.err.removeprefix("error: ").rstrip("\n")

    return run


def missing_file(folder):
    return folder / "nowhere.jpg", "no file at"


def a_directory(folder):
    path = folder / "folder.jpg"
    path.mkdir()
    return path, "the directory"


def text_named_jpg(folder):
    path = folder / "text.jpg"
    path.write_text("not a photograph\n" * 20)
    return path, "a file of another kind"


def zero_bytes(folder):
    path = folder / "empty.png"
    path.touch()
    return path, "an empty file"


def truncated_jpeg(folder):
    path = folder / "half.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:9000])
    return path, "truncated"


def truncated_png(folder):
    path = folder / "half.png"
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:9000])
    return path, "half.png ("


def one_pixel(folder):
    path = folder / "one.png"
    Image.new("RGB", (1, 1), (1, 2, 3)).save(path)
    return path, "an image of 1 x 1 pixels"


@pytest.mark.parametrize(
    "make",
    [
        missing_file,
        a_directory,
        text_named_jpg,
        zero_bytes,
        truncated_jpeg,
        truncated_png,
        one_pixel,
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_bad_photographs(refused, photographs, tmp_path, make, side):
    path, words = make(tmp_path)
    images = (path, photographs[1]) if side == 0 else (photographs[0], path)
    line = refused("--out", tmp_path / "pair.npz", "--draw", tmp_path / "p.png", images=images)
    assert line.startswith(f"image{side}: expected a")
    assert words in line
    pose_line = refused("--draw", tmp_path / "p.png", images=images, verb="pose")
    assert pose_line == line


@pytest.mark.parametrize("option", ["--camera0", "--camera1"])
@pytest.mark.parametrize(
    "text",
    ["-500,500,320,240", "0,500,320,240", "500,500,320", "a,b,c,d", "", "500,nan,320,240"],
)
def test_bad_cameras(refused, option, text):
    line = refused(f"{option}={text}", verb="pose")
    assert line.startswith(f"{option}: expected fx,fy,cx,cy in pixels")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "pair.txt"], "--out: expected a name that ends in .npz"),
        (["--out", "pair"], "--out: expected a name that ends in .npz"),
        (["--out", "missing/pair.npz"], "--out: expected a file in a folder that exists"),
        (["--out", "."], "--out: expected a name that ends in .npz"),
        (["--draw", "matches.docx"], "--draw: expected a name that ends in"),
        (["--draw", "missing/matches.png"], "--draw: expected a file in a folder that exists"),
        (["--max-size", "8"], "max_size: expected at least 32 pixels, got 8"),
        (["--top-k", "0"], "top_k: expected an integer of at least 1, got 0"),
        (["--device", "abacus"], "--device: expected a device of this machine"),
        (["--device", "meta"], "--device: expected a device of this machine"),
    ],
)
def test_bad_options(refused, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(*arguments)


def test_out_that_is_a_folder(refused, tmp_path):
    (tmp_path / "pair.npz").mkdir()
    assert refused("--out", tmp_path / "pair.npz").startswith("--out: expected a file, got")


def test_bad_threshold(refused):
    assert "max_epipolar_error_px" in refused("--threshold", "-1", verb="pose")


class Planted:
    """Would create a file when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def planted_pickle(folder):
    path = folder / "planted.pkl"
    path.write_bytes(pickle.dumps({"model": Planted(folder / "planted")}, protocol=4))
    return path


def planted_text_pickle(folder):
    path = folder / "planted0.pkl"
    path.write_bytes(pickle.dumps({"model": Planted(folder / "planted")}, protocol=0))
    return path


def planted_torch_file(folder):
    path = folder / "planted.pth"
    torch.save({"model": Planted(folder / "planted"), "args": None}, path)
    return path


def planted_model_string(folder):
    """A released layout whose model string is code."""
    import argparse

    path = folder / "string.pth"
    code = f"__import__('os').mkdir({str(folder / 'planted')!r})"
    torch.save({"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(model=code)}, path)
    return path


def truncated_checkpoint(folder, whole):
    path = folder / "half.safetensors"
    path.write_bytes(whole.read_bytes()[:-5000])
    return path


def foreign_safetensors(folder):
    path = folder / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    return path


def foreign_metadata(folder):
    path = folder / "claims.safetensors"
    header = {"version": 1, "kind": "two_view", "config": ModelConfig.tiny().to_dict()}
    save_file({"weight": torch.zeros(3)}, path, metadata={"widebase": json.dumps(header)})
    return path


def foreign_pth(folder):
    path = folder / "other.pth"
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2, 2)}}, path)
    return path


def foreign_zip(folder):
    path = folder / "archive.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    return path


def empty_folder(folder):
    path = folder / "hub"
    path.mkdir()
    return path


def text_checkpoint(folder):
    path = folder / "model.safetensors"
    path.write_text("<html>404</html>")
    return path


def empty_checkpoint(folder):
    path = folder / "model.pth"
    path.touch()
    return path


@pytest.mark.parametrize(
    "make",
    [
        planted_pickle,
        planted_text_pickle,
        planted_torch_file,
        planted_model_string,
        foreign_safetensors,
        foreign_metadata,
        foreign_pth,
        foreign_zip,
        empty_folder,
        text_checkpoint,
        empty_checkpoint,
    ],
)
def test_bad_checkpoints(refused, tmp_path, make):
    path = make(tmp_path)
    line = refused("--out", tmp_path / "pair.npz", model=path)
    assert line.startswith(f"--model: {path}")
    assert not (tmp_path / "planted").exists()
    with pytest.raises(CheckpointError, match=path.name):
        Matcher.from_pretrained(path)
    assert not (tmp_path / "planted").exists()


def test_the_trap_would_spring(tmp_path):
    """Otherwise the tests above would say nothing."""
    pickle.loads(planted_pickle(tmp_path).read_bytes())
    assert (tmp_path / "planted").is_dir()


def test_a_truncated_checkpoint(refused, tmp_path, tiny_checkpoint):
    path = truncated_checkpoint(tmp_path, tiny_checkpoint)
    line = refused(model=path)
    assert line.startswith(f"--model: {path}: truncated or damaged safetensors file")


@pytest.mark.parametrize("name", ["huge", "nowhere/model.safetensors", " ", "naver/DUSt3R"])
def test_an_unknown_model(refused, name):
    line = refused(model=name)
    assert line.startswith("--model: expected a")
    assert repr(name) in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["match", "--no-such-option"],
        ["match", "a.png"],
        ["dance"],
        ["pose", "a.png", "b.png", "--estimator", "guess"],
        ["pose", "a.png", "b.png", "--seed", "-1"],
        ["match", "a.png", "b.png", "--crops", "sometimes"],
    ],
)
def test_usage_errors(widebase, arguments):
    run = widebase(*arguments)
    assert run.status == 2
    assert run.out == ""
    assert "Traceback" not in run.err
    assert "Usage" in run.err


def test_demo_into_a_file(widebase, tiny_checkpoint, tmp_path):
    pytest.importorskip("skimage")
    (tmp_path / "file").touch()
    run = widebase("demo", "--out", tmp_path / "file", "--model", tiny_checkpoint)
    assert (run.status, run.out) == (2, "")
    assert run.err.startswith("error: --out: expected a folder that can be made")
    assert run.err.count("\n") == 1


def test_train_without_data(widebase, tmp_path):
    run = widebase("train", "--out", tmp_path / "run")
    assert (run.status, run.out) == (2, "")
    assert run.err.startswith("error: --data, --photos, --scenes, --pairs, --views: expected one")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    return Matcher(
        TwoViewNetwork(ModelConfig.tiny()), CheckpointInfo("tiny"), PairOptions(max_size=64)
    )


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.full((32, 32, 3), np.nan), "finite pixels, got NaN"),
        (torch.full((3, 32, 32), torch.nan), "finite pixels, got NaN"),
        (np.full((32, 32, 3), 200.0), r"floats in \[0, 1\], got values 200 to 200"),
        (np.zeros((32, 32, 3), dtype=np.int32), "uint8, uint16 or float .* got int32"),
        (np.zeros((32, 32, 3), dtype=bool), "got bool"),
        (np.zeros((32, 32, 5), dtype=np.uint8), r"got an array of shape \(32, 32, 5\)"),
        (np.zeros((3, 32, 32), dtype=np.uint8), r"got an array of shape \(3, 32, 32\)"),
        (np.zeros((0, 32, 3), dtype=np.uint8), r"at least one pixel, got shape \(0, 32, 3\)"),
        (torch.zeros(2, 3, 32, 32), r"got a tensor of shape \(2, 3, 32, 32\)"),
        (torch.zeros(32, 32, 3), r"got a tensor of shape \(32, 32, 3\)"),
        (torch.zeros(1, 1, 1), "a photograph, got an image of 1 x 1 pixels"),
        (None, "a path, a PIL image, a numpy array or a torch tensor, got NoneType"),
        (7, "got int"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_bad_arrays(untrained, bad, words, side):
    good = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    images = (bad, good) if side == 0 else (good, bad)
    with pytest.raises(InputError, match=rf"^image{side}: expected .*{words}") as caught:
        untrained.match(*images)
    assert "\n" not in str(caught.value)


def test_it_is_a_value_error_too(untrained):
    with pytest.raises(ValueError, match="image0"):
        untrained.match("nowhere.jpg", "nowhere.jpg")
