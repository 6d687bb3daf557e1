"""The benchmarks' own honesty: what they compare with, and that a wrong result is not timed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.__main__ import PAGE, page_of
from benchmarks.case import Array
from benchmarks.cases import CASES, function_of, named
from benchmarks.measure import disagreement, measure
from benchmarks.processes import ROOT, Peer, start, ticks
from benchmarks.report import line, page, quantity, table
from benchmarks.results import Results, Row

ADD = named("x + 1, 8 floats")
STEP = named("784-500-10 mlp step")


@pytest.mark.parametrize(
    "results, words",
    [
        ([], "0 results, wanted 1"),
        ([np.zeros((8, 1), np.float32)], "shape (8, 1), wanted (8,)"),
        ([np.zeros(8, np.float32)], "off by"),
        ([np.full(8, np.nan, np.float32)], "off by nan"),
    ],
)
def test_a_wrong_result_is_noticed(results: list[Array], words: str) -> None:
    wanted = [ADD.arrays()["x"] + 1]
    assert words in str(disagreement(results, wanted, ADD.tolerance))


def test_a_right_result_is_accepted() -> None:
    wanted = [ADD.arrays()["x"] + 1]
    assert disagreement(wanted, wanted, ADD.tolerance) is None


@pytest.fixture
def numpy_peer(tmp_path: Path) -> Iterator[dict[str, Peer]]:
    peers = start(["numpy"], None, [min(os.sched_getaffinity(0))], tmp_path)
    yield peers
    for peer in peers.values():
        peer.close()


def test_a_peer_in_its_own_process_is_timed(numpy_peer: dict[str, Peer], tmp_path: Path) -> None:
    row = measure(ADD, numpy_peer, 1, tmp_path, rounds=1, seconds=0.01)
    assert not row.failures and 1e-8 < row.seconds["numpy"] < 1e-3


def test_what_a_peer_cannot_do_is_said(numpy_peer: dict[str, Peer], tmp_path: Path) -> None:
    row = measure(named("log-density + gradient, 1000 float64"), numpy_peer, 1, tmp_path, rounds=0)
    assert row.not_yet == ["numpy"] and not row.seconds and not row.failures


def test_tcc_says_where_its_time_goes(tmp_path: Path) -> None:
    case = named("matmul f32 NN 64x64x64")
    peers = start(["tcc"], None, [min(os.sched_getaffinity(0))], tmp_path)
    row = measure(case, peers, 1, tmp_path, rounds=1, seconds=0.01)
    peers["tcc"].close()
    assert not row.failures and row.limit == "fma" and row.least > 0
    assert row.kernels[0].startswith("100 % matmul f32[64,64] f32[64,64] -> f32[64,64] (")


def test_work_of_others_is_not_that_of_the_peers(numpy_peer: dict[str, Peer], tmp_path: Path) -> None:
    before = ticks(numpy_peer["numpy"].pid)
    measure(ADD, numpy_peer, 1, tmp_path, rounds=1, seconds=0.3)
    assert ticks(numpy_peer["numpy"].pid) > before


def test_a_case_that_fails_is_named(numpy_peer: dict[str, Peer], tmp_path: Path) -> None:
    reply = numpy_peer["numpy"].ask("prepare", ADD.name, results=str(tmp_path / "no" / "such.npz"))
    assert reply["error"].startswith("FileNotFoundError")


def product() -> Row:
    row = Row("product", "products", 2, limit="fma", least=0.005)
    row.seconds = {"tcc": 0.010, "numpy": 0.025, "jax": 0.020}
    row.failures, row.not_yet = {"torch": "off by nan"}, ["pytensor"]
    return row


def test_the_table_sets_tcc_against_the_best_peer() -> None:
    text = table([product()])
    assert text.splitlines()[2].split() == "product 2 10 ms 25 ms 20 ms failed - 2.00 jax 50 % fma".split()
    assert "product, 2 threads: torch: off by nan" in text


def test_what_tcc_cannot_do_yet_stays_in_the_table() -> None:
    row = Row("x", "maps", 1, seconds={"jax": 1.0}, not_yet=["tcc"])
    assert table([row]).splitlines()[2].split() == "x 1 1 s not yet - jax".split()
    assert "| x | 1 | not yet | 1 s | jax |" in page(
        Results("0", {"cpu": "c", "cpus": 1, "python": "3"}, {}, [row]), "r"
    )


def test_a_file_takes_the_rows_of_several_runs(tmp_path: Path) -> None:
    facts = {"cpu": "c", "cpus": 1, "python": "3"}
    old = Results("0", facts, {"jax": "1"}, [product(), Row("x", "maps", 1, seconds={"tcc": 1.0})])
    old.save(tmp_path / "r.json")
    new = Results("0", facts, {"numpy": "2"}, [Row("x", "maps", 1, seconds={"tcc": 2.0})])
    both = Results.load(tmp_path / "r.json").merged(new)
    assert [row.seconds["tcc"] for row in both.rows] == [0.010, 2.0]
    assert both.peers == {"jax": "1", "numpy": "2"}
    with pytest.raises(ValueError, match="version"):
        both.merged(Results("1", facts, {}, []))


def test_the_pages_are_of_the_latest_results() -> None:
    """`python -m benchmarks --page benchmarks/results/VERSION.json` writes one, VERSION-CPU.json that of another CPU."""
    latest = {page_of(path): path for path in sorted((ROOT / "benchmarks" / "results").glob("*.json"))}
    assert PAGE in latest
    for where, path in latest.items():
        assert where.read_text() == page(Results.load(path), path.stem)


def test_results_name_the_cpu_and_neither_host_nor_path() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert Results.load(path).machine.keys() == {"cpu", "cpus", "python"}
        assert str(ROOT) not in path.read_text() and "/tmp" not in path.read_text()


def test_quantities_carry_their_unit() -> None:
    assert [quantity(s) for s in (2.5, 0.1584, 7.71e-3, 42e-6, 84e-9, None)] == [
        "2.5 s",
        "158 ms",
        "7.71 ms",
        "42 us",
        "84 ns",
        "-",
    ]


def test_every_case_says_what_is_least() -> None:
    """Work counts are of the sizes measured; a case without any is bound by the call or by its many small kernels."""
    without = {case.name for case in CASES if case.timed and not (case.least().flops or case.least().read)}
    assert without == {
        "x + 1, 8 floats",
        "x + 1, 8 floats, from the host and back",
        "hessian-vector product, 16-32-1 mlp, batch 32",
        "log-density + gradient, 1000 float64",
        "solve 1000 of 6x6 f64",
        "kalman filter, 4 states, 200 steps f64",
        "gaussian process + gradient, 200 points f64",
    }
    assert STEP.least().flops == 600 * 500 * (4 * 784 + 6 * 10)


def test_a_row_is_one_line() -> None:
    row = Row(
        "add", "maps", 2, seconds={"tcc": 2e-6, "numpy": 3e-6}, agreed=["tcc", "numpy"], not_yet=["jax"]
    )
    assert line(row) == "add, threads 2: tcc 2 us, numpy 3 us; ratio 1.50 to numpy"
    assert line(Row("add", "maps", 1, failures={"tcc": "off by 1"})) == "add, threads 1: tcc failed"


def test_a_run_that_is_stopped_has_said_each_row_and_prints_its_table() -> None:
    command = [sys.executable, "-m", "benchmarks", "--only", "8 floats", "--only", "mlp", "--peer", "tcc"]
    run = subprocess.Popen(
        [*command, "--peer", "numpy", "--threads", "1", "--quick"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    said = run.stderr.readline()
    assert said.startswith("x + 1, 8 floats, threads 1: tcc ")
    run.send_signal(signal.SIGTERM)
    table, rest = run.communicate()
    assert run.returncode == 0 and "interrupted" in rest
    assert [row.split("  ")[0] for row in table.splitlines()[2:]] == ["x + 1, 8 floats"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--only", "nothing"), "no case's name contains, nothing"),
        (("--threads", "0"), "--threads: wanted 1 or more, got 0"),
        (("--peers", "nowhere"), "--peers nowhere: no such program"),
        (("--page", "nowhere"), "--page nowhere: no such file"),
    ],
)
def test_wrong_arguments_get_a_message(arguments: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and said in done.stderr


def test_cupy_runs_what_numpy_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy stands in for itself by NumPy: where its arrays lie is all that differs."""
    waited: list[int] = []
    stream = SimpleNamespace(synchronize=lambda: waited.append(1))
    fake = SimpleNamespace(
        array=np.array, asnumpy=np.asarray, cuda=SimpleNamespace(get_current_stream=lambda: stream)
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.cupy_peer", raising=False)
    from benchmarks.peers import cupy_peer, numpy_peer

    for case in (ADD, STEP):
        f = function_of("numpy", case)
        got, want = (peer.task(case, f, case.arrays()).results() for peer in (cupy_peer, numpy_peer))
        assert disagreement(got, want, case.tolerance) is None and waited


def test_a_reader_of_the_list_may_leave() -> None:
    listing = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--list"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert listing.stdout is not None
    listing.stdout.close()  # before the first line
    assert (listing.communicate()[1], listing.returncode) == (b"", 0)
