"""What the encoder made of photographs, kept under a memory cap: on the device, the host, the disk.

An encoding costs more to make than to move, so it is never thrown away: the least recently used one
moves a tier down. A photograph's own pixels, which crops need, are kept while there is room and
read from their file again otherwise.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from safetensors import SafetensorError

from matcher.encoded_images import (
    EncodedImage,
    Payload,
    load_payload,
    moved,
    num_bytes,
    owned,
    save_payload,
)
from matcher.errors import InputError
from matcher.images import RgbArray, read_image
from matcher.model.network import EncodedViews
from matcher.structures import View

__all__ = [
    "EncodingCache",
    "MemoryLimits",
    "SeenPhotograph",
    "UnreadablePhotographError",
]


class UnreadablePhotographError(InputError):
    """A photograph that was read once cannot be read again."""


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """How much memory encodings and photographs may take while many pairs are matched.

    The network's own weights and activations come on top, and so does one photograph that is being
    read. The disk has no limit: about 8 MB a photograph at a long side of 512 pixels.

    Attributes:
        device_bytes: on the GPU, for encodings; without one it means nothing.
        host_bytes: in main memory, for encodings and photographs together.
        disk_folder: where the rest of the encodings goes, into a folder of its own that is removed
            afterwards; ``None``: where the system keeps temporary files.

    Raises:
        InputError: a negative number of bytes, a folder that does not exist.
    """

    device_bytes: int = 2 << 30
    host_bytes: int = 2 << 30
    disk_folder: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for name in ("device_bytes", "host_bytes"):
            if getattr(self, name) < 0:
                raise InputError(name, "0 bytes or more", f"{getattr(self, name)}")
        if self.disk_folder is not None and not Path(self.disk_folder).is_dir():
            raise InputError("disk_folder", "a folder that exists", f"{self.disk_folder}")


@dataclass(frozen=True, slots=True, eq=False)
class SeenPhotograph:
    """What is remembered of every photograph, however little room there is.

    Attributes:
        view: what the network saw of it, without the pixels' values: after the encoder only their
            shape is looked at.
        value_range: the lowest and the highest value of the photograph.
        shape_key: encodings with equal keys can be stacked.
        encoded_bytes: size of the encoding.
    """

    view: View
    value_range: tuple[int, int]
    shape_key: Hashable
    encoded_bytes: int


@dataclass(slots=True, eq=False)
class _Part:
    """An encoding or a photograph, and where else than in memory it can be had."""

    nbytes: int
    payload: Payload | None = None
    tier: _Tier | None = None
    spilled: Path | None = None
    source: Path | None = None


class _Tier:
    """Parts in one kind of memory, the least recently used first."""

    def __init__(self, device: torch.device, cap: int) -> None:
        self.device = device
        self.cap = cap
        self.used = 0
        self.peak = 0
        self._parts: OrderedDict[int, _Part] = OrderedDict()

    def add(self, part: _Part, payload: Payload) -> None:
        part.payload, part.tier = payload, self
        self._parts[id(part)] = part
        self.used += part.nbytes
        self.peak = max(self.peak, self.used)

    def remove(self, part: _Part) -> None:
        del self._parts[id(part)]
        part.payload, part.tier = None, None
        self.used -= part.nbytes

    def touch(self, part: _Part) -> None:
        self._parts.move_to_end(id(part))

    def oldest(self) -> _Part | None:
        return next(iter(self._parts.values()), None)


class EncodingCache:
    """Encodings and photographs by key, under a memory cap. Not for several threads at once.

    It may be given to several calls of one matcher, so that they share their encodings; close it
    afterwards, or use it as a context manager.

    Args:
        limits: how much memory it may take.
        device: where the network wants its encodings.
    """

    def __init__(
        self, limits: MemoryLimits | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.limits = limits or MemoryLimits()
        self.num_encoded = 0
        """How many encodings it was given."""
        cpu = torch.device("cpu")
        self._host = _Tier(cpu, self.limits.host_bytes)
        self._device = (
            self._host
            if torch.device(device) == cpu
            else _Tier(torch.device(device), self.limits.device_bytes)
        )
        self._seen: dict[Hashable, SeenPhotograph] = {}
        self._encodings: dict[Hashable, _Part] = {}
        self._photographs: dict[Hashable, _Part] = {}
        self._folder: Path | None = None
        self._file_numbers = itertools.count()

    def __enter__(self) -> EncodingCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._seen

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def host_bytes(self) -> int:
        """Bytes kept in main memory now."""
        return self._host.used

    @property
    def peak_host_bytes(self) -> int:
        """The most that was ever kept in main memory."""
        return self._host.peak

    @property
    def device_bytes(self) -> int:
        """Bytes kept on the network's device now; on a CPU that is the main memory."""
        return self._device.used

    @property
    def peak_device_bytes(self) -> int:
        """The most that was ever kept on the network's device."""
        return self._device.peak

    @property
    def disk_bytes(self) -> int:
        """Bytes of encodings in files now."""
        parts = [*self._encodings.values(), *self._photographs.values()]
        return sum(part.nbytes for part in parts if part.spilled is not None)

    @property
    def batch_bytes(self) -> int:
        """Encodings of so many bytes can be in use together without passing the cap."""
        # Main memory also holds the photographs that crops are cut from.
        return self._device.cap // 2 if self._device is self._host else self._device.cap

    def put(self, key: Hashable, image: EncodedImage, source: Path | None = None) -> None:
        """Take an encoding in.

        Args:
            key: what to call it; new.
            image: the encoding, without a mask.
            source: the photograph's file, from which it may be read again; ``None``: it is kept.

        Raises:
            InputError: no room on the disk.
        """
        assert key not in self._seen
        assert image.mask is None
        encoded = owned(image.encoded)
        self._seen[key] = SeenPhotograph(
            replace(image.view, pixels=image.view.pixels.new_zeros(1).expand_as(image.view.pixels)),
            (int(image.image.min()), int(image.image.max())),
            encoded.shape_key,
            num_bytes(encoded),
        )
        self._encodings[key] = _Part(num_bytes(encoded))
        self._photographs[key] = _Part(image.image.nbytes, source=source)
        self.num_encoded += 1
        self._keep(self._photographs[key], image.image, self._host)
        self._keep(self._encodings[key], encoded, self._device)

    def seen(self, key: Hashable) -> SeenPhotograph:
        """What is remembered of a photograph; ``KeyError`` if it was never put in."""
        return self._seen[key]

    def encoded(self, key: Hashable) -> EncodedViews:
        """The encoding, on the network's device; it is the most recently used now."""
        part = self._encodings[key]
        if part.tier is self._device:
            self._device.touch(part)
            payload = part.payload
        else:
            if part.tier is self._host:
                payload = part.payload
                self._host.remove(part)
            else:
                assert part.spilled is not None
                payload = load_payload(part.spilled)
            assert isinstance(payload, EncodedViews)
            # Room first, so that what moves up and what moves down are not there together.
            self._make_room(self._device, part.nbytes)
            payload = moved(payload, self._device.device)
            self._keep(part, payload, self._device)
        assert isinstance(payload, EncodedViews)
        return payload

    def photograph(self, key: Hashable) -> RgbArray:
        """(H, W, 3) uint8 RGB, read again if it had to go; the most recently used now.

        Raises:
            UnreadablePhotographError: its file can no longer be read, or holds another photograph.
        """
        part = self._photographs[key]
        if part.tier is not None:
            part.tier.touch(part)
            payload = part.payload
        else:
            self._make_room(self._host, part.nbytes)
            payload = self._read_again(key, part)
            self._keep(part, payload, self._host)
        assert isinstance(payload, np.ndarray)
        return payload

    def _read_again(self, key: Hashable, part: _Part) -> RgbArray:
        if part.spilled is not None:
            payload = load_payload(part.spilled)
            assert isinstance(payload, np.ndarray)
            return payload
        assert part.source is not None
        try:
            image = read_image(part.source, "photograph")
        except InputError as error:
            raise UnreadablePhotographError(*error.__reduce__()[1]) from None
        size = self._seen[key].view.original_size
        if image.shape[:2] != (size.height, size.width):
            raise UnreadablePhotographError(
                "photograph",
                f"{size.width} x {size.height} pixels, as when it was first read",
                f"{image.shape[1]} x {image.shape[0]} in {part.source}",
            )
        return image

    def forget(self, key: Hashable) -> None:
        """Drop everything of a photograph."""
        for part in (self._encodings.pop(key), self._photographs.pop(key)):
            if part.tier is not None:
                part.tier.remove(part)
            if part.spilled is not None:
                with suppress(OSError):
                    part.spilled.unlink()
        del self._seen[key]

    def give_way(self) -> None:
        """Memory ran out where the network is: keep half as much there from now on."""
        self._device.cap = self._device.used // 2
        self._shrink(self._device, self._device.cap)

    def close(self) -> None:
        """Forget everything and remove the files."""
        for key in list(self._seen):
            self.forget(key)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _keep(self, part: _Part, payload: Payload, tier: _Tier) -> None:
        """Into a tier if the part fits at all, else into the one below."""
        if part.nbytes <= tier.cap:
            self._make_room(tier, part.nbytes)
            tier.add(part, payload)
        else:
            self._move_down(part, payload, tier)

    def _make_room(self, tier: _Tier, wanted: int) -> None:
        if wanted <= tier.cap:
            self._shrink(tier, tier.cap - wanted)

    def _shrink(self, tier: _Tier, most: int) -> None:
        """Until at most so many bytes are in a tier, the least recently used leaves."""
        while tier.used > most and (part := tier.oldest()) is not None:
            payload = part.payload
            assert payload is not None
            tier.remove(part)
            self._move_down(part, payload, tier)

    def _move_down(self, part: _Part, payload: Payload, tier: _Tier) -> None:
        if tier is not self._host:
            assert isinstance(payload, EncodedViews)
            self._make_room(self._host, part.nbytes)
            self._keep(part, moved(payload, self._host.device), self._host)
        elif part.spilled is None and part.source is None:
            part.spilled = self._spill(payload)

    def _spill(self, payload: Payload) -> Path:
        path: Path | None = None
        try:
            if self._folder is None:
                self._folder = Path(
                    tempfile.mkdtemp(prefix="widebase-", dir=self.limits.disk_folder)
                )
            path = self._folder / f"{next(self._file_numbers)}.safetensors"
            save_payload(path, payload)
        except (OSError, SafetensorError) as error:
            if path is not None:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            reason = " ".join(str(error).split())
            raise InputError(
                "disk_folder", "room for the encodings that memory cannot hold", reason
            ) from None
        return path
