"""NumPy archives of strangers: arrays of objects are read without running what a pickle asks for.

Official lists (MegaDepth-1500) keep file names and matrices in object arrays, which NumPy stores
as pickles. Here a pickle may build arrays, numbers, strings, tuples, lists and dictionaries;
whatever else it names is refused.
"""

from __future__ import annotations

import codecs
import io
import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matcher.errors import DatasetError

__all__ = ["read_npz"]

_Array = npt.NDArray[Any]
# NumPy 2 renamed its core; files of both ages name these.
_NUMPY_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")


class _Refused(Exception):
    """A pickle names something beyond plain data."""


def _encode_latin1(text: str, encoding: str) -> bytes:
    """The one use NumPy makes of ``_codecs.encode``: bytes in old pickles."""
    if encoding != "latin1":
        raise _Refused(f"an encoding {encoding!r}")
    return codecs.encode(text, "latin1")


class _PlainUnpickler(pickle.Unpickler):
    """Builds arrays and plain values, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every name but NumPy's array constructors."""
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module in _NUMPY_CORES and name in ("_reconstruct", "scalar"):
            # NumPy's own pickles lead to its constructors under either of their homes.
            constructor = np.array([None]).__reduce__()[0]
            return constructor if name == "_reconstruct" else np.float64(0).__reduce__()[0]
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        raise _Refused(f"{module}.{name}")


def _read_array(content: bytes) -> _Array:
    """One ``.npy`` file."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if header is None:
        raise ValueError(f"version {version} of the npy format")
    shape, is_fortran, dtype = header(stream)
    if not dtype.hasobject:
        stream.seek(0)
        array: _Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array
    objects = _PlainUnpickler(stream, encoding="latin1").load()
    if not isinstance(objects, np.ndarray) or objects.size != int(np.prod(shape)):
        raise ValueError("an object array that is none")
    return objects.reshape(shape, order="F" if is_fortran else "C")


def read_npz(path: Path, keys: Sequence[str] | None = None) -> dict[str, _Array]:
    """The arrays of an ``.npz`` file by name.

    Args:
        path: the file.
        keys: which ones; ``None``: all.

    Raises:
        DatasetError: the file is absent or truncated, lacks a key, or its pickles ask for more
            than plain data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            present = [name.removesuffix(".npy") for name in archive.namelist()]
            missing = [key for key in keys or () if key not in present]
            if missing:
                has = ", ".join(present) or "nothing"
                raise ValueError(f"there is no {missing[0]!r}; it has {has}")
            wanted = present if keys is None else keys
            return {key: _read_array(archive.read(f"{key}.npy")) for key in wanted}
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except _Refused as refused:
        raise DatasetError(f"{path}: refused, its pickle asks for {refused}") from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise DatasetError(f"{path}: truncated, or no npz file ({error})") from None
    except (ValueError, TypeError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        raise DatasetError(f"{path}: an array that cannot be read ({error})") from None
