"""Weights in files: safetensors, and NumPy's .npz.  No file is trusted: nothing is unpickled, and sizes are checked before memory is taken."""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from tcc.ir import safetensors
from tcc.ir.files import replacing
from tcc.ir.safetensors import Array, Tensor, tensor
from tcc.ir.types import FROM_NUMPY
from tcc.runtime.machine import available_memory

SUFFIXES = (".safetensors", ".npz")
_NPY_SUFFIX = ".npy"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class WeightsError(ValueError):
    """A file of weights that cannot be read, or that is not for these variables; the message says why."""


def mapped(path: Path) -> memoryview:
    """A file's bytes, read as they are needed; OSError when it cannot be read."""
    with path.open("rb") as file:
        try:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError:  # an empty file
            return memoryview(b"")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .npz file, by name.  WeightsError, or OSError when it cannot be read."""
    _require_suffix(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.decode(mapped(path))
        return _read_npz(path.read_bytes())
    except ValueError as e:
        raise WeightsError(f"{path} is no {path.suffix[1:]} file that can be read: {e}") from None


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a .safetensors or .npz file, whole or not at all; equal tensors give equal bytes.  TypeError for a dtype that
    the format lacks."""
    _require_suffix(path)
    for name in tensors:
        if not name or "\0" in name or "/" in name or len(name) > 200:
            raise WeightsError(f"{name[:40]!r} cannot be the name of a tensor in {path}")
    if path.suffix == ".npz":
        _write_npz(path, tensors)
        return
    with replacing(path) as file:
        file.writelines(safetensors.encode(tensors))


def _require_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path}: a file of weights ends with {' or '.join(SUFFIXES)}")


# -- .npz --------------------------------------------------------------------------------------------------------


def _write_npz(path: Path, tensors: Mapping[str, Tensor]) -> None:
    odd = [name for name, t in tensors.items() if t.dtype == "bf16"]
    if odd:
        raise TypeError(f"NumPy has no dtype for {odd[0]}, which is bfloat16; write a .safetensors file")
    with replacing(path) as file, zipfile.ZipFile(file, "w") as members:
        for name in sorted(tensors):
            with members.open(zipfile.ZipInfo(name + _NPY_SUFFIX), "w", force_zip64=True) as member:
                np.lib.format.write_array(
                    member, np.asarray(tensors[name].array, order="C"), allow_pickle=False
                )


def _read_npz(data: bytes) -> dict[str, Tensor]:
    """ValueError for whatever is wrong; what zipfile and its decompressors raise for that is a long list."""
    found: dict[str, Tensor] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            infos = members.infolist()
            wanted = sum(i.file_size for i in infos)
            if wanted > available_memory():
                raise ValueError(f"it says that it holds {wanted:,} bytes, more than the memory that is free")
            for info in infos:
                name = info.filename.removesuffix(_NPY_SUFFIX)
                if name in found:
                    raise ValueError(f"it holds {name} twice")
                with members.open(info) as member:
                    found[name] = _member(name, member, info.file_size)
    except ValueError:
        raise
    except Exception as e:
        raise ValueError(f"{type(e).__name__}: {e}") from None
    return found


def _member(name: str, member: IO[bytes], size: int) -> Tensor:
    try:
        return tensor(_read_npy(member, size))
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from None


def read_npy(path: Path) -> Array:
    """The array of a .npy file, in native byte order.  WeightsError, or OSError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return _read_npy(file, path.stat().st_size)
    except ValueError as e:
        raise WeightsError(f"{path} is no .npy file that can be read: {e}") from None


def _read_npy(file: IO[bytes], size: int) -> Array:
    """The array of a stream of `size` bytes: no more memory is taken than its data have bytes."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the .npy format")
    try:
        shape, fortran, dtype = _HEADERS[version](file)
    except Exception as e:  # of Python's own parser too
        raise ValueError(f"its header cannot be read ({e})") from None
    if dtype.hasobject or dtype.newbyteorder("=").name not in FROM_NUMPY:
        raise ValueError(f"holds {dtype}, which is no dtype of numbers that tcc knows")
    count = 1
    for s in shape:
        if type(s) is not int or s < 0:
            raise ValueError(f"has the shape {shape}")
        count *= s
    if count * dtype.itemsize > size:
        raise ValueError(f"says {dtype}{list(shape)}, more than its {size} bytes")
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"ends after {len(data)} of {count * dtype.itemsize} bytes of data")
    flat = np.frombuffer(data, dtype)
    if dtype.kind == "b" and np.any(flat.view(np.uint8) > 1):
        raise ValueError("holds bytes other than 0 and 1 as bools")
    array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return np.asarray(array, dtype.newbyteorder("="))


# -- checking ----------------------------------------------------------------------------------------------------


def match(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str, strict: bool = True) -> None:
    """WeightsError unless `found` has all that is wanted, of the same dtypes and shapes, and, if `strict`, nothing else."""
    missing = [n for n in wanted if n not in found]
    if missing:
        raise WeightsError(f"{where} lacks {_listed(missing)} (it has {_listed(list(found))})")
    extra = [n for n in found if n not in wanted]
    if strict and extra:
        raise WeightsError(
            f"{where} has {_listed(extra)}, which nothing here is called (strict=False leaves it)"
        )
    for name, w in wanted.items():
        got = found[name]
        if got.dtype != w.dtype or got.array.shape != w.array.shape:
            raise WeightsError(
                f"{where}: {name} is {got.dtype}{list(got.array.shape)}, wanted {w.dtype}{list(w.array.shape)}"
            )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "nothing"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
