"""From a name or a path to a network: bundled models, local files, released models on the hub."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import nn

from matcher.checkpoints.hub import CONFIG_FILE, WEIGHTS_FILE, read_hub
from matcher.checkpoints.info import (
    CheckpointInfo,
    CheckpointLayout,
    LoadedCheckpoint,
    LoadedCroCo,
)
from matcher.checkpoints.native import read_native, read_native_info
from matcher.checkpoints.released import RELEASED_LICENCE, read_released
from matcher.checkpoints.state import one_line
from matcher.errors import CheckpointError, InputError
from matcher.model.croco import CroCoNetwork
from matcher.model.network import TwoViewNetwork

__all__ = [
    "AvailableCheckpoint",
    "available_checkpoints",
    "layout_of",
    "load_checkpoint",
    "load_croco",
]

_LOGGER = logging.getLogger("matcher")

_BUNDLED = ("small",)
_LARGEST_SAFETENSORS_HEADER = 100_000_000

NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class _HubModel:
    """A released model on the hub; the metric flag overrules what a file says about itself."""

    is_metric: bool
    notes: str


_DUST3R = _HubModel(False, "pointmaps up to scale, no descriptors")
_MAST3R = _HubModel(
    True, "metric pointmaps and descriptors; mind the licences of its training data"
)
_HUB_MODELS = {
    "naver/DUSt3R_ViTLarge_BaseDecoder_224_linear": _DUST3R,
    "naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt": _DUST3R,
    "naver/DUSt3R_ViTLarge_BaseDecoder_512_linear": _DUST3R,
    "naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric": _MAST3R,
}


@dataclass(frozen=True, slots=True)
class AvailableCheckpoint:
    """A name that ``load_checkpoint`` knows.

    Attributes:
        info: what is known about it; hash and layout only where the file is here.
        origin: ``bundled`` with this distribution, or downloaded from the ``hub``.
        is_present: whether the weights are on this machine already.
    """

    info: CheckpointInfo
    origin: Literal["bundled", "hub"]
    is_present: bool


def load_checkpoint(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    *,
    allow_download: bool = True,
) -> LoadedCheckpoint:
    """Load a two-view network.

    Args:
        name_or_path: ``"small"`` (bundled), a file or folder in any known layout (told by content,
            not by name), or the name of a released DUSt3R or MASt3R model on the hub.
        device: where the network goes.
        allow_download: false: a released model must already be in the local cache.

    Returns:
        the network in evaluation mode, in float32, with its licence and origin.

    Raises:
        InputError: unknown name, missing file, or a device that is not there.
        CheckpointError: a file that cannot be read or does not fit, or a download that failed.
    """
    path, name = _locate(name_or_path, allow_download)
    network, info = _read(path)
    if not isinstance(network, TwoViewNetwork):
        raise CheckpointError(
            f"{path}: a CroCo network, which predicts hidden patches only; a two-view network can "
            f"start from it (load_croco, two_view_from_croco)"
        )
    known = _known_model(name or str(path.absolute()))
    if known is not None:
        info = _with_known_facts(info, known)
        network.config = dataclasses.replace(network.config, is_metric=info.is_metric)
    if info.layout != "native":
        _say_licence(info.name, info.licence)
    return LoadedCheckpoint(_to_device(network, device), info)


def load_croco(path: str | Path, device: str | torch.device = "cpu") -> LoadedCroCo:
    """Load a CroCo network, of our own format or a released ``.pth``.

    Raises:
        InputError: missing file, or a device that is not there.
        CheckpointError: a file that cannot be read, does not fit, or holds another network.
    """
    file = Path(path)
    if not _exists(file):
        raise InputError("path", "an existing checkpoint", f"{str(path)!r} (no such file)")
    network, info = _read(file)
    if not isinstance(network, CroCoNetwork):
        raise CheckpointError(f"{file}: a two-view network, expected a CroCo network")
    if info.layout != "native":
        _say_licence(info.name, info.licence)
    return LoadedCroCo(_to_device(network, device), info)


def available_checkpoints() -> tuple[AvailableCheckpoint, ...]:
    """The names that ``load_checkpoint`` knows, and whether their weights are on this machine."""
    bundled = []
    for name in _BUNDLED:
        asset = _asset(name)
        info = CheckpointInfo(name, source="bundled")
        if asset.is_file():
            info = read_native_info(asset)
        bundled.append(AvailableCheckpoint(info, "bundled", asset.is_file()))
    on_hub = (
        AvailableCheckpoint(
            CheckpointInfo(
                name=name,
                licence=RELEASED_LICENCE,
                layout="hub",
                is_metric=model.is_metric,
                source=f"https://huggingface.co/{name}",
                notes=model.notes,
            ),
            "hub",
            _is_cached(name),
        )
        for name, model in _HUB_MODELS.items()
    )
    return (*bundled, *on_hub)


def layout_of(path: Path) -> CheckpointLayout:
    """Tell a checkpoint's layout by its content.

    Raises:
        CheckpointError: empty, or nothing that is known.
    """
    if path.is_dir():
        return "hub"
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({one_line(error)})") from None
    if size == 0:
        raise CheckpointError(f"{path}: an empty file, expected a checkpoint")
    header_length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and header_length <= _LARGEST_SAFETENSORS_HEADER:
        return "native"
    is_pickle = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if start.startswith(b"PK\x03\x04") or is_pickle:
        return "released"
    raise CheckpointError(
        f"{path}: neither a safetensors file nor one of torch.save (it starts with {start[:8]!r})"
    )


def _read(path: Path) -> tuple[TwoViewNetwork | CroCoNetwork, CheckpointInfo]:
    layout = layout_of(path)
    if layout == "native":
        return read_native(path)
    checkpoint = read_hub(path) if layout == "hub" else read_released(path)
    return checkpoint.network, checkpoint.info


def _locate(name_or_path: str | Path, allow_download: bool) -> tuple[Path, str]:
    """The file or folder to read, and the hub name when it was one."""
    if not isinstance(name_or_path, str | Path) or not str(name_or_path).strip():
        raise InputError("name_or_path", "a model name or a path", repr(name_or_path)[:60])
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in _BUNDLED:
        return _bundled_path(name), ""
    path = Path(name_or_path)
    if _exists(path):
        return path, ""
    if name in _HUB_MODELS:
        return _download(name, allow_download), name
    known = ", ".join([*_BUNDLED, *_HUB_MODELS])
    raise InputError(
        "name_or_path", f"an existing file or folder, or one of {known}", f"{name[:200]!r}"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # for instance a name longer than the file system allows
        return False


def _asset(name: str) -> Path:
    # A wheel is unpacked on installation: package data are plain files.
    folder = Path(str(importlib.resources.files("matcher.checkpoints")))
    return folder / "assets" / f"{name}.safetensors"


def _bundled_path(name: str) -> Path:
    asset = _asset(name)
    if not asset.is_file():
        raise CheckpointError(
            f"the bundled model {name!r} is missing from this installation ({asset}); "
            f"reinstall widebase, or pass the path of a checkpoint"
        )
    return asset


def _download(name: str, allow_download: bool) -> Path:
    """The local folder of a released model, downloaded or from the cache."""
    import huggingface_hub

    try:
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            local = huggingface_hub.hf_hub_download(
                repo_id=name, filename=file, local_files_only=not allow_download
            )
    except Exception as error:  # the hub client lets errors of several network libraries through
        raise CheckpointError(
            f"{name}: cannot be downloaded ({type(error).__name__}); where there is a network run "
            f"`hf download {name} {CONFIG_FILE} {WEIGHTS_FILE} --local-dir {name.split('/')[1]}`, "
            f"copy that folder here and pass its path; or copy the cache (HF_HOME) and set "
            f"HF_HUB_OFFLINE=1"
        ) from error
    return Path(local).parent


def _is_cached(name: str) -> bool:
    import huggingface_hub

    return isinstance(huggingface_hub.try_to_load_from_cache(name, WEIGHTS_FILE), str)


def _known_model(text: str) -> str | None:
    """The released model that a name or path speaks of, if any."""
    for name in _HUB_MODELS:
        if name.split("/")[1] in text:
            return name
    return None


def _with_known_facts(info: CheckpointInfo, name: str) -> CheckpointInfo:
    model = _HUB_MODELS[name]
    if info.layout == "native":
        return info
    return dataclasses.replace(
        info,
        name=name,
        licence=RELEASED_LICENCE,
        is_metric=model.is_metric,
        source=f"https://huggingface.co/{name}",
        notes=model.notes,
    )


@functools.cache
def _say_licence(name: str, licence: str) -> None:
    """Say once per process and model that its weights are not under this project's licence."""
    _LOGGER.warning("the weights of %s are under the licence %s, not Apache-2.0", name, licence)


def _to_device(network: NetworkT, device: str | torch.device) -> NetworkT:
    try:
        return network.to(torch.device(device))
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            "device", "a device that is there", f"{device} ({one_line(error)})"
        ) from None
