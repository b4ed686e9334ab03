"""``match``, ``pose``, ``demo``, ``info``."""

from __future__ import annotations

import platform
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from matcher import Matcher, MatchingOptions, PairOptions, PairResult, RelativePoseOptions
from matcher.checkpoints import available_checkpoints
from matcher.cli.app import EXIT_NO_ANSWER, app, say, write_json
from matcher.drawing import check_picture_path
from matcher.errors import CheckpointError, InputError
from matcher.geometry.camera import parse_camera
from matcher.geometry.pose import rotation_error_deg, translation_error_deg
from matcher.sample_pairs import disparity_errors_px, motorcycle_pair
from matcher.structures import RelativePose

__all__ = ["demo", "info", "load_matcher", "match", "pose"]


_PACKAGES = (
    "widebase",
    "torch",
    "kornia",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "poselib",
    "opencv-python",
    "numpy",
)


class Crops(str, Enum):
    """When to match again in crops at full resolution."""

    auto = "auto"
    always = "always"
    never = "never"


class Turns(str, Enum):
    """When to try photograph 1 on its sides and upside down."""

    auto = "auto"
    never = "never"


class PrecisionName(str, Enum):
    """What the network multiplies in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Estimator(str, Enum):
    """The robust estimator of the pose."""

    poselib = "poselib"
    magsac = "magsac"


Photo = Annotated[Path, typer.Argument(help="A photograph.", show_default=False)]
ModelName = Annotated[
    str, typer.Option("--model", help="small, a checkpoint file or folder, or a released model.")
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; a GPU is taken if there is one.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Draw = Annotated[Path | None, typer.Option(help="Write a picture of the matches.")]
MaxSize = Annotated[int, typer.Option(help="Long side of the network's view, pixels.")]
CropChoice = Annotated[
    Crops,
    typer.Option(
        help="Match again in crops, warped alike; auto: large photographs, or few right matches."
    ),
]
TurnChoice = Annotated[
    Turns, typer.Option(help="Try photograph 1 turned where little is found upright.")
]
PrecisionChoice = Annotated[
    PrecisionName, typer.Option(help="Of products; auto: bfloat16 on CUDA and on CPUs with AMX.")
]
Symmetric = Annotated[
    bool, typer.Option("--symmetric", help="Look both ways: slower, the order is all one.")
]
TopK = Annotated[int | None, typer.Option(help="Keep at most so many matches, well spread.")]


def load_matcher(model: str, device: str | None, options: PairOptions) -> Matcher:
    """The matcher of a command line; errors name its options instead of Python's arguments."""
    try:
        return Matcher.from_pretrained(model, device=device, options=options)
    except CheckpointError as error:
        raise CheckpointError(f"--model: {error}") from None
    except InputError as error:
        argument = {"name_or_path": "--model", "device": "--device"}.get(error.argument)
        raise InputError(argument or error.argument, error.expected, error.actual) from None


def _options(
    max_size: int,
    crops: Crops,
    turns: Turns,
    precision: PrecisionName,
    seed: int,
    *,
    symmetric: bool,
    top_k: int | None = None,
) -> PairOptions:
    matching = MatchingOptions(symmetric=symmetric, top_k=top_k, seed=seed)
    return PairOptions(
        matching=matching,
        max_size=max_size,
        crops=crops.value,
        turns=turns.value,
        precision=precision.value,
    )


def _check_npz_path(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix != ".npz":
        raise InputError("--out", "a name that ends in .npz", f"{path}")
    if not path.parent.is_dir():
        raise InputError("--out", "a file in a folder that exists", f"{path}")
    if path.is_dir():
        raise InputError("--out", "a file", f"the folder {path}")


def _check_outputs(out: Path | None, draw: Path | None) -> None:
    """Complain about a path before an hour of work, not after."""
    _check_npz_path(out)
    if draw is not None:
        try:
            check_picture_path(draw)
        except InputError as error:
            raise InputError("--draw", error.expected, error.actual) from None


@app.command()
def match(
    image0: Photo,
    image1: Photo,
    out: Annotated[Path | None, typer.Option(help="Write the matches as .npz.")] = None,
    draw: Draw = None,
    model: ModelName = "small",
    max_size: MaxSize = 512,
    crops: CropChoice = Crops.auto,
    turns: TurnChoice = Turns.auto,
    symmetric: Symmetric = False,
    precision: PrecisionChoice = PrecisionName.auto,
    top_k: TopK = None,
    device: Device = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Find the places that two photographs have in common.

    With --json the matches themselves are in the object, unless --out takes them.
    """
    _check_outputs(out, draw)
    options = _options(max_size, crops, turns, precision, seed, symmetric=symmetric, top_k=top_k)
    matcher = load_matcher(model, device, options)
    pair = matcher.match(image0, image1, keep_pointmaps=False)
    if out is not None:
        pair.save(out)
    if draw is not None:
        pair.draw(draw)
    if as_json:
        values = pair.to_dict()
        if out is not None:
            for name in ("keypoints0", "keypoints1", "confidence"):
                del values[name]
        values["out"] = None if out is None else str(out)
        values["draw"] = None if draw is None else str(draw)
        write_json(values)
    else:
        model_text = f"{pair.info.name} ({pair.info.licence})"
        say(f"{len(pair)} matches in {pair.seconds:.2f} s with {model_text}")
        _say_turned(pair)
        if pair.reason is not None:
            say(pair.reason)
        for path in (out, draw):
            if path is not None:
                say(f"wrote {path}")
    if not len(pair):
        raise typer.Exit(EXIT_NO_ANSWER)


def pose_values(pair: PairResult, answer: RelativePose) -> dict[str, Any]:
    """What ``pose --json`` prints."""
    values: dict[str, Any] = {
        "num_matches": len(pair),
        "num_inliers": answer.num_inliers,
        "model": pair.info.name,
        "licence": pair.info.licence,
        "seconds": round(pair.seconds, 3),
    }
    if answer.cam1_from_cam0 is None:
        return {"pose": None, "reason": answer.reason, **values}
    cameras = [answer.camera0, answer.camera1]
    return {
        "rotation": answer.cam1_from_cam0.rotation.tolist(),
        "translation": answer.cam1_from_cam0.translation.tolist(),
        "is_metric": answer.is_metric,
        "method": answer.method,
        "focals": [None if camera is None else list(camera.focals) for camera in cameras],
        **values,
    }


@app.command()
def pose(
    image0: Photo,
    image1: Photo,
    camera0: Annotated[
        str | None, typer.Option(help="fx,fy,cx,cy of photograph 0, in its pixels.")
    ] = None,
    camera1: Annotated[str | None, typer.Option(help="The same of photograph 1.")] = None,
    model: ModelName = "small",
    draw: Draw = None,
    threshold: Annotated[float, typer.Option(help="Largest epipolar error, pixels.")] = 1.0,
    estimator: Annotated[Estimator, typer.Option(help="Robust estimator.")] = Estimator.poselib,
    max_size: MaxSize = 512,
    crops: CropChoice = Crops.auto,
    turns: TurnChoice = Turns.auto,
    symmetric: Symmetric = False,
    precision: PrecisionChoice = PrecisionName.auto,
    device: Device = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Find where the second camera stood: rotation and translation of cam1_from_cam0."""
    _check_outputs(None, draw)
    known0 = None if camera0 is None else parse_camera(camera0, "--camera0")
    known1 = None if camera1 is None else parse_camera(camera1, "--camera1")
    choices = RelativePoseOptions(
        estimator=estimator.value, max_epipolar_error_px=threshold, seed=seed
    )
    options = _options(max_size, crops, turns, precision, seed, symmetric=symmetric)
    matcher = load_matcher(model, device, options)
    pair = matcher.match(image0, image1)
    answer = pair.relative_pose(known0, known1, options=choices)
    if draw is not None:
        pair.draw(draw, pose=answer)
    if as_json:
        write_json(pose_values(pair, answer))
    else:
        _say_pose(pair, answer)
        if draw is not None:
            say(f"wrote {draw}")
    if answer.cam1_from_cam0 is None:
        raise typer.Exit(EXIT_NO_ANSWER)


def _say_pose(pair: PairResult, answer: RelativePose) -> None:
    if answer.cam1_from_cam0 is None:
        say(f"no pose: {answer.reason}")
        return
    with np.printoptions(precision=6, suppress=True):
        say(f"rotation (cam1_from_cam0)\n{answer.cam1_from_cam0.rotation}")
        unit = "metres" if answer.is_metric else "direction only"
        say(f"translation ({unit})\n{answer.cam1_from_cam0.translation}")
    say(
        f"{answer.num_inliers} of {len(pair)} matches agree; {answer.method}; "
        f"{pair.seconds:.2f} s with {pair.info.name} ({pair.info.licence})"
    )
    _say_turned(pair)


def _say_turned(pair: PairResult) -> None:
    if pair.quarter_turns1:
        degrees = 90 * pair.quarter_turns1
        say(
            f"photograph 1 was matched turned by {degrees} degrees; the answer is about it as given"
        )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the picture and the matches.")] = Path(
        "demo"
    ),
    model: ModelName = "small",
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Match a real pair of photographs with measured truth, and say how good the answer is.

    The pair is "Motorcycle" of the Middlebury stereo data (2014), as scikit-image ships it.
    """
    sample = motorcycle_pair()
    matcher = load_matcher(model, device, PairOptions())
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--out", "a folder that can be made", f"{out}: {error.strerror}") from None
    pair = matcher.match(sample.image0, sample.image1)
    answer = pair.relative_pose(sample.camera0, sample.camera1)
    picture, matches = out / "motorcycle.jpg", out / "motorcycle.npz"
    pair.draw(picture, pose=answer)
    pair.save(matches)
    errors = disparity_errors_px(pair.keypoints0.numpy(), pair.keypoints1.numpy(), sample.disparity)
    share = float((errors <= 3).mean()) if len(errors) else 0.0
    values = pose_values(pair, answer)
    values |= {"share_within_3px": round(share, 4), "num_matches_with_truth": len(errors)}
    values |= {"picture": str(picture), "matches": str(matches)}
    if answer.cam1_from_cam0 is not None:
        truth = sample.cam1_from_cam0
        values["rotation_error_deg"] = round(
            rotation_error_deg(answer.cam1_from_cam0.rotation, truth.rotation), 4
        )
        values["translation_error_deg"] = round(
            translation_error_deg(answer.cam1_from_cam0.translation, truth.translation), 4
        )
    if as_json:
        write_json(values)
    else:
        _say_pose(pair, answer)
        if answer.cam1_from_cam0 is not None:
            say(
                f"rotation error {values['rotation_error_deg']} degrees, translation direction "
                f"error {values['translation_error_deg']} degrees"
            )
        say(f"{share:.1%} of {len(errors)} matches lie within 3 px of the measured disparity")
        say(f"wrote {picture} and {matches}")
    if answer.cam1_from_cam0 is None:
        raise typer.Exit(EXIT_NO_ANSWER)


@app.command()
def info(as_json: AsJson = False) -> None:
    """Versions, devices, and the models with their licences."""
    packages = {name: _version(name) for name in _PACKAGES}
    devices = ["cpu"] + [
        f"cuda:{index} ({torch.cuda.get_device_name(index)})"
        for index in range(torch.cuda.device_count())
    ]
    models = [
        {
            "name": entry.info.name,
            "licence": entry.info.licence,
            "is_metric": entry.info.is_metric,
            "origin": entry.origin,
            "is_present": entry.is_present,
            "sha256": entry.info.sha256,
        }
        for entry in available_checkpoints()
    ]
    if as_json:
        write_json(
            {
                "python": platform.python_version(),
                "packages": packages,
                "devices": devices,
                "threads": torch.get_num_threads(),
                "models": models,
            }
        )
        return
    say(f"python {platform.python_version()}, {torch.get_num_threads()} threads")
    for name, found in packages.items():
        say(f"{name} {found or 'not installed'}")
    say(f"devices: {', '.join(devices)}")
    for model in models:
        where = "here" if model["is_present"] else "on the hub"
        say(f"{model['name']}: {model['licence']}; {where}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
