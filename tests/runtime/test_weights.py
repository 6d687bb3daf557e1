"""Files of weights: written the same each time, read back, and refused in plain words."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcc.ir import safetensors
from tcc.ir.safetensors import Tensor, decode, encode, tensor
from tcc.ir.types import DTYPES
from tcc.runtime import weights
from tcc.runtime.weights import WeightsError

DTYPES_OF_NUMPY = [str(n) for d, (n, _) in DTYPES.items() if n and d != "object"]


def file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (7, 3)])
def test_every_dtype_and_shape_comes_back(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    arrays = {d: np.asarray(rng.integers(0, 2, shape)).astype(d) for d in DTYPES_OF_NUMPY}
    path = tmp_path / f"w{suffix}"
    weights.write(path, {k: tensor(a) for k, a in arrays.items()})
    got = weights.read(path)
    assert sorted(got) == sorted(arrays)
    for name, array in arrays.items():
        assert got[name].array.dtype == array.dtype
        np.testing.assert_array_equal(got[name].array, array)


def test_bfloat16_is_two_bytes_in_safetensors_and_unknown_to_numpy(tmp_path: Path) -> None:
    half = Tensor("bf16", np.array([0x3F80, 0x4000], np.uint16))
    weights.write(tmp_path / "w.safetensors", {"h": half})
    got = weights.read(tmp_path / "w.safetensors")["h"]
    assert got.dtype == "bf16" and got.array.tolist() == [0x3F80, 0x4000]
    with pytest.raises(TypeError, match="NumPy has no dtype for h, which is bfloat16"):
        weights.write(tmp_path / "w.npz", {"h": half})
    assert not (tmp_path / "w.npz").exists()


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
def test_equal_weights_are_equal_bytes(tmp_path: Path, suffix: str) -> None:
    a, b = tensor(np.arange(6.0).reshape(2, 3)), tensor(np.arange(3, dtype="i1"))
    weights.write(tmp_path / f"1{suffix}", {"a": a, "b": b})
    weights.write(tmp_path / f"2{suffix}", {"b": b, "a": Tensor("f64", np.asfortranarray(a.array))})
    assert (tmp_path / f"1{suffix}").read_bytes() == (tmp_path / f"2{suffix}").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"1{suffix}", f"2{suffix}"]


def test_elements_lie_where_their_width_wants_them() -> None:
    data = b"".join(
        encode({"a": tensor(np.ones(3, "i1")), "b": tensor(np.ones(5)), "c": tensor(np.ones(1, "f2"))})
    )
    assert all(t.array.flags.aligned for t in decode(data).values())
    assert [n for n, t in sorted(decode(data).items(), key=lambda t: t[1].offset)] == ["b", "c", "a"]


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "cut off within its first 8 bytes"),
        (file({"a": entry()}, b"\0" * 8)[:20], "it is cut off: its header needs"),
        (file({}, length=1 << 63), "more than the format's"),
        (file(b"{"), "not JSON"),
        (file(b"\xff\xff"), "invalid start byte"),
        (file(b"[" * 100_000), "nested too deep"),
        (file(b"[]"), "not a JSON object"),
        (file(b'{"a":1,"a":2}'), "a name twice"),
        (file({"a": 3}), "a has not the fields data_offsets, dtype, shape"),
        (file({"a": entry() | {"more": 1}}), "a has not the fields"),
        (file({"a": entry("F8_E4M3")}), "the dtype 'F8_E4M3'"),
        (file({"a": entry(dtype=[])}), "the dtype"),  # type: ignore[arg-type]
        (file({"a": entry(shape=[-2])}), "not a list of at most 32 sizes"),
        (file({"a": entry(shape=[True])}), "not a list of at most 32 sizes"),
        (file({"a": entry(shape=[1] * 33)}), "not a list of at most 32 sizes"),
        (file({"a": entry(shape=[1 << 62, 1 << 62])}, b"\0" * 8), "has 8 bytes"),
        (file({"a": entry(offsets=[8, 0])}), "not two places in order"),
        (file({"a": entry(offsets=[0])}), "not two places in order"),
        (file({"a": entry(offsets=[0, 1 << 70])}), "not two places in order"),
        (file({"a": entry(shape=[3])}, b"\0" * 8), "a, f32.3., has 8 bytes"),
        (
            file({"a": entry(offsets=[4, 12])}, b"\0" * 12),
            "the data of a begin at 4, and those before end at 0",
        ),
        (
            file({"a": entry(), "b": entry()}, b"\0" * 8),
            "the data of b begin at 0, and those before end at 8",
        ),
        (file({"a": entry(), "b": entry(offsets=[4, 12])}, b"\0" * 12), "the data of b begin at 4"),
        (file({"a": entry()}, b"\0" * 7), "need 8 bytes of data, and there are 7"),
        (file({"a": entry()}, b"\0" * 9), "need 8 bytes of data, and there are 9"),
        (file({"a": entry("BOOL", [2], [0, 2])}, b"\1\2"), "bytes other than 0 and 1"),
    ],
)
def test_what_is_wrong_with_a_safetensors_file_is_said(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(
        WeightsError, match=f"w.safetensors is no safetensors file that can be read: .*{message}"
    ):
        weights.read(path)


def test_metadata_is_passed_over() -> None:
    assert decode(file({"__metadata__": {"format": "pt"}, "a": entry()}, b"\0" * 8)).keys() == {"a"}


def npz(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as z:
        for name, data in members.items():
            z.writestr(name, data)
    return path


def npy(array: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array, allow_pickle=True)
    return made.getvalue()


def test_numpy_reads_what_is_written_and_writes_what_is_read(tmp_path: Path) -> None:
    a = np.arange(6, dtype=">f4").reshape(2, 3)
    weights.write(tmp_path / "w.npz", {"a": tensor(a.astype("f4"))})
    np.testing.assert_array_equal(np.load(tmp_path / "w.npz")["a"], a)
    np.savez_compressed(tmp_path / "n.npz", a=a, f=np.asfortranarray(a))
    got = weights.read(tmp_path / "n.npz")
    for t in got.values():
        assert t.dtype == "f32" and t.array.dtype.isnative
        np.testing.assert_array_equal(t.array, a)


class Trap:
    """Unpickling it writes a file."""

    def __reduce__(self) -> Any:
        return open, ("trap", "w")


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    npz(tmp_path / "w.npz", {"a.npy": npy(np.array([Trap()], object))})
    with pytest.raises(WeightsError, match="a: holds object, which is no dtype of numbers"):
        weights.read(tmp_path / "w.npz")
    (tmp_path / "p.npy").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(WeightsError, match="no .npy file that can be read"):
        weights.read_npy(tmp_path / "p.npy")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "no .npy file"),
        (b"\x93NUMPY\x09\x00", "version"),
        (npy(np.ones(4))[:-1], "more than its|ends after"),
        (npy(np.ones(4)).replace(b"(4,), ", b"(1<<9)"), "no .npy file"),
        (npy(np.ones(10)).replace(b"(10,)", b"(-1,)"), "has the shape"),
        (npy(np.ones(1000)).replace(b"(1000,)", b"(10**9)"), "no .npy file"),
        (npy(np.ones(1000)).replace(b"(1000,)", b"(9999,)"), "more than its"),
        (npy(np.array(["a"])), "no dtype of numbers"),
        (npy(np.zeros(2, [("a", "f4")])), "no dtype of numbers"),
        (npy(np.ones(4, bool))[:-1] + b"\2", "bytes other than 0 and 1"),
    ],
)
def test_what_is_wrong_with_an_npy_file_is_said(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        weights.read_npy(path)
    with pytest.raises(WeightsError):
        weights.read(npz(tmp_path / "a.npz", {"a.npy": data}))


def test_a_zip_bomb_is_refused_before_it_takes_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "available_memory", lambda: 1 << 20)
    path = npz(
        tmp_path / "w.npz", {"a.npy": npy(np.zeros(1 << 20, "i1")), "b.npy": b""}, zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 10_000
    with pytest.raises(WeightsError, match="holds 1,048,704 bytes, more than the memory that is free"):
        weights.read(path)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as z, pytest.warns(UserWarning, match="Duplicate"):
        z.writestr("a.npy", npy(1))
        z.writestr("a.npy", npy(2))
    with pytest.raises(WeightsError, match="holds a twice"):
        weights.read(tmp_path / "w.npz")


@pytest.mark.parametrize("name", ["", "a/b", "a\0", "a" * 201])
def test_odd_names_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="cannot be the name of a tensor"):
        weights.write(tmp_path / "w.npz", {name: tensor(np.ones(1))})


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    for use in (lambda p: weights.read(p), lambda p: weights.write(p, {})):
        with pytest.raises(WeightsError, match="w.pkl: a file of weights ends with .safetensors or .npz"):
            use(tmp_path / "w.pkl")


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "w.safetensors"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    weights.write(pipe, {"a": tensor(np.ones(3))})
    assert int.from_bytes(os.read(reader, 8), "little") < 200
    os.close(reader)
    assert pipe.is_fifo() and [p.name for p in tmp_path.iterdir()] == [pipe.name]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    good = tmp_path / "w.safetensors"
    weights.write(good, {"a": tensor(np.ones(3))})
    before = good.read_bytes()
    with pytest.raises(KeyboardInterrupt), safetensors_failing():
        weights.write(good, {"a": tensor(np.ones(4))})
    assert good.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [good.name]


class safetensors_failing:
    """Within it, encoding writes a part and is interrupted."""

    def __enter__(self) -> None:
        self.kept = safetensors.encode

        def failing(_: Any) -> Any:
            yield b"half"
            raise KeyboardInterrupt

        safetensors.encode = failing  # type: ignore[assignment]

    def __exit__(self, *_: Any) -> None:
        safetensors.encode = self.kept


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
def test_mutations_are_read_or_refused(tmp_path: Path, suffix: str) -> None:
    rng = random.Random(7)
    path = tmp_path / f"w{suffix}"
    weights.write(path, {"a": tensor(np.ones((2, 3), "f4")), "b": tensor(np.ones(5, "i1"))})
    whole = path.read_bytes()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            if rng.random() < 0.6:
                data[at] = rng.randrange(256)
            else:
                del data[at : at + rng.randint(1, 30)]
        path.write_bytes(data)
        try:
            got = weights.read(path)
        except WeightsError as e:
            assert str(path) in str(e)
            continue
        assert all(isinstance(t.array, np.ndarray) for t in got.values())
