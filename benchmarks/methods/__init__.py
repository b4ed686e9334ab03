"""Methods behind one interface: ours, the classical ones, trained peers."""

from __future__ import annotations

from pathlib import Path

from benchmarks.core.predictions import Method
from benchmarks.methods import classical, lightglue, xfeat
from benchmarks.methods.base import MethodEntry, MethodOptions
from benchmarks.methods.widebase import build_widebase
from matcher.checkpoints import available_checkpoints
from matcher.errors import InputError

__all__ = ["MethodEntry", "MethodOptions", "available_methods", "build_method"]

_PEERS = {peer.name: peer for peer in (*classical.PEERS, *xfeat.PEERS, *lightglue.PEERS)}


def available_methods() -> tuple[MethodEntry, ...]:
    """All methods that have a name, also those that cannot run here, with the reason."""
    ours = tuple(
        MethodEntry(
            checkpoint.info.name,
            checkpoint.info.notes.splitlines()[0] if checkpoint.info.notes else "Widebase model",
            checkpoint.info.licence,
            "" if checkpoint.is_present else f"its weights are not here ({checkpoint.info.source})",
            is_ours=checkpoint.origin == "bundled",
        )
        for checkpoint in available_checkpoints()
    )
    return (*(peer.entry for peer in _PEERS.values()), *ours)


def build_method(name: str, options: MethodOptions | None = None) -> Method:
    """A method by its name, or a model by its checkpoint's path.

    Args:
        name: one of ``available_methods``, or a path.
        options: for our own models, and the device.

    Raises:
        InputError: an unknown name.
        MissingDependencyError: a method whose package, or its weights, are not installed.
        CheckpointError: a checkpoint that cannot be read, or whose download failed.
    """
    options = options or MethodOptions()
    peer = _PEERS.get(name)
    if peer is not None:
        missing = peer.what_is_missing()
        if missing is not None:
            raise missing
        return peer.build(options)
    known = [checkpoint.info.name for checkpoint in available_checkpoints()]
    if name not in known and not _exists(name):
        raise InputError(
            "method", f"one of {', '.join([*_PEERS, *known])}, or a checkpoint", f"{name[:200]!r}"
        )
    return build_widebase(name, options)


def _exists(name: str) -> bool:
    try:
        return bool(name.strip()) and Path(name).exists()
    except (OSError, ValueError):  # for instance a name longer than the file system allows
        return False
