from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tcc.__main__ import main
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func
from tcc.ir.optable import TABLE
from tcc.ir.text import load, parse, save
from tcc.ir.types import parse_type
from tcc.passes.pipeline import PASSES
from tcc.tools import opt as opt_tool
from tcc.tools.cli import cli, run

Output = pytest.CaptureFixture[str]

TEXT = """func @f(%x: f32[n,4], %y: f32[n,4]) -> (f32[n,4]) {
  %a = add %x, %y : f32[n,4] loc "model.py:3"
  %b = add %y, %x : f32[n,4]
  %c = mul %a, %b : f32[n,4]
  yield %c
}
"""
MODEL = """
import numpy as np
import tcc
import tcc.tensor as T

print("loading")
x = T.matrix("x", dtype="float32")
w = tcc.shared(np.ones((3, 4), np.float32), "w")
layer = tcc.function([x], T.tanh(T.dot(x, w)), name="layer")
plain = 3

def build():
    return {"first": layer, "second": tcc.function([x], x + 1)}

def twice():
    layer(np.ones((2, 3), np.float32))
    layer(np.ones((5, 3), np.float32))
    return layer

def fails():
    return 1 / 0

def leaves():
    raise SystemExit(3)

def main():
    print("it trains")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a text and a model in it, an import path of its own, and a folder for what crashes leave."""
    (tmp_path / "f.tcir").write_text(TEXT)
    (tmp_path / "model_of_test.py").write_text(MODEL)
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TCC_CACHE_DIR", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("model_of_test", None)


# -- conventions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", *cli.commands])
def test_help_and_version_everywhere(name: str, capsys: Output) -> None:
    words = [name] if name else []
    assert run([*words, "--help"]) == 0
    assert f"Usage: tcc {name}".strip() in capsys.readouterr().out
    assert run([*words, "--version"]) == 0
    assert re.fullmatch(r"tcc, version \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["opt"],
        ["opt", "f.tcir", "--nonsense"],
        ["opt", "f.tcir", "-p", "nonsense"],
        ["opt", "f.tcir", "-p", "cse{x=1}"],
        ["opt", "f.tcir", "--print-after", "nonsense"],
        ["opt", "f.tcir", "--run-reproducer", "f.tcir"],
        ["dump", "f.tcir", "--stage", "nonsense"],
        ["dump", "f.tcir", "--size", "n"],
        ["dump", "f.tcir", "--size", "k=3"],
        ["ops", "nonsense"],
        ["cache", "nonsense"],
    ],
)
def test_wrong_usage_is_2(here: Path, words: list[str], capsys: Output) -> None:
    assert run(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "tcc: error:" in captured.err and "Traceback" not in captured.err


def test_a_wrong_setting_is_an_error_that_names_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("TCC_CACHE_MB", "much")
    assert run(["cache"]) == 1
    assert (
        capsys.readouterr().err
        == "tcc: error: TCC_CACHE_MB must be a number of megabytes from 1 to 1048576, got 'much'\n"
    )


def test_an_internal_error_is_70_and_leaves_its_details(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def broken() -> str:
        raise RuntimeError("no table")

    monkeypatch.setattr("tcc.tools.describe.ops_table", broken)
    assert run(["ops"]) == 70
    err = capsys.readouterr().err
    assert err.startswith("tcc: internal error: RuntimeError: no table\n") and "Traceback" not in err
    details = Path(err.split()[-1]).read_text()
    assert details.startswith("tcc ops\n") and "Traceback" in details


def test_an_interrupt_is_130(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("tcc.tools.describe.ops_table", interrupted)
    assert run(["ops"]) == 130
    assert capsys.readouterr().err.strip() == "tcc: interrupted"


def test_an_interrupt_while_the_command_is_loaded_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    class Loading(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "tcc.tools.cli", Loading("tcc.tools.cli"))
    with pytest.raises(SystemExit, match="^130$"):
        main()
    assert capsys.readouterr().err == "tcc: interrupted\n"


def test_ctrl_c_while_a_model_loads(here: Path) -> None:
    (here / "slow.py").write_text(
        "import sys, time\nprint('ready', file=sys.stderr, flush=True)\ntime.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-m", "tcc", "dump", "slow.py:f"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None and child.stderr.readline() == "ready\n"
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=30)[1].strip() == "tcc: interrupted"
    assert child.returncode == 130


def test_a_reader_that_goes_away_is_no_error(here: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m tcc ops | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


# -- opt ---------------------------------------------------------------------------------------------------------


def test_opt_prints_what_the_passes_make(here: Path, capsys: Output) -> None:
    assert run(["opt", "f.tcir", "-p", "canonicalize,cse,dce"]) == 0
    out = capsys.readouterr().out
    assert out.count("add") == 1 and "f" in parse(out)


def test_opt_without_passes_prints_the_same_text(here: Path, capsys: Output) -> None:
    assert run(["opt", "f.tcir"]) == 0
    assert capsys.readouterr().out == TEXT


def test_opt_reads_stdin(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tcc", "opt", "-", "-p", "dce"], input=TEXT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, TEXT, "")


def test_opt_writes_a_file_under_a_temporary_name_first(here: Path, capsys: Output) -> None:
    assert run(["opt", "f.tcir", "-o", "out.tcir"]) == 0
    assert capsys.readouterr().out == "" and (here / "out.tcir").read_text() == TEXT
    assert run(["opt", "f.tcir", "-o", "no/such/folder/out.tcir"]) == 1
    assert "cannot write: No such file or directory" in capsys.readouterr().err
    assert not list(here.glob("*.part"))


def test_a_read_only_folder_is_told_by_the_name_that_the_file_was_to_have(
    here: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)  # even of a file that is not there
    assert run(["opt", "f.tcir", "-o", "out.tcir"]) == 1
    assert capsys.readouterr().err == "out.tcir: error: cannot write: Read-only file system\n"


def test_opt_carries_large_constants_along(here: Path, capsys: Output) -> None:
    block = Block()
    b = Builder(block)
    array = np.arange(100.0)
    b.op("yield", b.neg(b.const(array, parse_type("f64[100]"))))
    save(here / "big.tcir", Func("f", block))
    assert run(["opt", "big.tcir"]) == 0
    assert "only named here" in capsys.readouterr().err
    (here / "sub").mkdir()
    assert run(["opt", "big.tcir", "-o", "sub/big.tcir"]) == 0
    first = load(here / "sub" / "big.tcir")["f"].body.first
    assert first is not None
    np.testing.assert_array_equal(first.attrs["value"], array)


def test_opt_shows_and_times_the_passes(here: Path, capsys: Output) -> None:
    assert run(["opt", "f.tcir", "-p", "cse,dce,hoist", "--print-changed", "--time-passes"]) == 0
    err = capsys.readouterr().err
    shown = re.findall(r"^// @f after (\w+)", err, re.M)
    assert shown == ["cse"]
    assert re.findall(r"^(\w+) +\d", err, re.M) == ["cse", "dce", "hoist", "total"]
    assert run(["opt", "f.tcir", "-p", "canonicalize,cse,dce", "--print-after-all"]) == 0
    assert capsys.readouterr().err.count("// @f after") == 3
    assert run(["opt", "f.tcir", "-p", "canonicalize,cse,dce", "--print-after", "dce"]) == 0
    assert capsys.readouterr().err.count("// @f after") == 1


@pytest.mark.parametrize(
    "text, words",
    [
        (
            TEXT.replace("mul %a", "mull %a"),
            "f.tcir:4:8: error: no op named mull (did you mean mul?)\n  %c = mull",
        ),
        (
            TEXT.replace("%x: f32", "%x: f64"),
            "f.tcir:2:3: error: add in @f: add: operands must have one dtype, got (f64[n,4], f32[n,4])\n"
            '  %a = add %x, %y : f32[n,4] loc "model.py:3"\n  ^\nnote: written at model.py:3\n',
        ),
        (TEXT[:-2], "f.tcir:5:11: error: expected }, found the end of the text\n"),
        ("\0", "f.tcir:1:1: error: unexpected character '\\x00'\n"),
    ],
)
def test_errors_in_the_text_are_1_and_show_the_line(
    here: Path, text: str, words: str, capsys: Output
) -> None:
    (here / "f.tcir").write_text(text)
    assert run(["opt", "f.tcir"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(words) and captured.out == ""


def test_files_that_cannot_be_read(here: Path, capsys: Output) -> None:
    assert run(["opt", "none.tcir"]) == 1
    assert capsys.readouterr().err == "none.tcir: error: No such file or directory\n"
    (here / "f.tcir").write_bytes(b"func\n\xff")
    assert run(["opt", "f.tcir"]) == 1
    assert capsys.readouterr().err == "f.tcir:2: error: not UTF-8 text\n"


def test_a_failing_pass_is_70_and_leaves_a_reproducer(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def cse(func: Func, ctx: object) -> None:
        if any(op.name == "mul" for op in func.body.ops):
            raise ZeroDivisionError("by zero")

    monkeypatch.setitem(PASSES, "cse", cse)
    assert run(["opt", "f.tcir", "-p", "dce,cse,fold", "--reproducer", "r.tcir"]) == 70
    err = capsys.readouterr().err
    assert (
        err.startswith("tcc: error: pass cse failed in @f: ZeroDivisionError: by zero\n")
        and "Traceback" not in err
    )
    assert (here / "r.tcir").read_text() == f"// passes: cse,fold\n{TEXT}"
    assert run(["opt", "--run-reproducer", "r.tcir"]) == 70
    monkeypatch.setitem(PASSES, "cse", opt_tool.parse_pipeline("dce")[0].function)
    capsys.readouterr()
    assert run(["opt", "--run-reproducer", "r.tcir"]) == 0
    assert capsys.readouterr().out == TEXT


def test_a_pass_that_breaks_the_graph_is_found_by_verify_each(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def cse(func: Func, ctx: object) -> None:
        assert func.body.first is not None
        func.body.first.result.type = parse_type("f64[n,4]")

    monkeypatch.setitem(PASSES, "cse", cse)
    assert run(["opt", "f.tcir", "-p", "cse,dce", "--verify-each"]) == 70
    assert "pass cse failed in @f: VerifyError" in capsys.readouterr().err


def test_a_file_without_passes_is_no_reproducer(here: Path, capsys: Output) -> None:
    assert run(["opt", "--run-reproducer", "f.tcir"]) == 4
    assert capsys.readouterr().err.startswith("f.tcir: error: no line like")


# -- dump, explain -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["values", "fused", "placed"])
def test_dumped_ir_can_be_read_again(here: Path, stage: str, capsys: Output) -> None:
    assert run(["dump", "model_of_test.py:layer", "--stage", stage]) == 0
    captured = capsys.readouterr()
    assert list(parse(captured.out)) == ["layer"] and captured.err == "loading\n"


@pytest.mark.parametrize("stage", ["fused", "placed", "planned"])
def test_dumped_ir_goes_on_to_the_same_plan(here: Path, stage: str, capsys: Output) -> None:
    """What was dumped, and maybe edited, goes on from where it stands."""
    assert run(["dump", "model_of_test.py:layer", "--stage", "plan"]) == 0
    wanted = capsys.readouterr().out
    assert run(["dump", "model_of_test.py:layer", "--stage", "placed" if stage == "planned" else stage]) == 0
    Path("dumped.tcir").write_text(capsys.readouterr().out)
    if stage == "planned":
        assert run(["opt", "dumped.tcir", "-p", "plan", "-o", "dumped.tcir"]) == 0
    assert run(["dump", "dumped.tcir", "--stage", "plan"]) == 0
    assert capsys.readouterr().out == wanted


@pytest.mark.parametrize(
    "stage, words", [("plan", "bytes at its peak"), ("llvm", "define i32 @"), ("asm", ".globl")]
)
def test_dump_shows_what_becomes_of_a_function(here: Path, stage: str, words: str, capsys: Output) -> None:
    assert run(["dump", "f.tcir", "--stage", stage]) == 0
    assert words in capsys.readouterr().out


def test_dump_puts_sizes_in(here: Path, capsys: Output) -> None:
    assert run(["dump", "f.tcir", "--stage", "values", "--size", "n=600"]) == 0
    assert "f32[600,4]" in capsys.readouterr().out


def test_dump_puts_in_the_sizes_that_shared_variables_have(here: Path, capsys: Output) -> None:
    assert run(["dump", "model_of_test.py:layer", "--stage", "values"]) == 0
    assert "(%x: f32[x_0,3], %w: f32[3,4])" in capsys.readouterr().out


def test_dump_writes_a_file_for_each_stage(here: Path, capsys: Output) -> None:
    assert run(["dump", "model_of_test.py:build", "--dump-dir", "out", "--fn", "second"]) == 0
    assert capsys.readouterr().out == ""
    names = {p.name for p in (here / "out").iterdir()}
    assert names == {
        f"second.{s}" for s in ("values.tcir", "fused.tcir", "placed.tcir", "plan.txt", "llvm.ll", "asm.s")
    }


def test_dump_of_a_module_takes_every_compiled_function(here: Path, capsys: Output) -> None:
    assert run(["dump", "model_of_test:build", "--stage", "values"]) == 0
    assert capsys.readouterr().out.count("func @") == 2
    assert run(["dump", "model_of_test.py", "--stage", "values"]) == 0
    assert capsys.readouterr().out.count("func @") == 1


@pytest.mark.parametrize(
    "target, words",
    [
        ("model_of_test.py:laier", "model_of_test.py: error: no attribute laier (did you mean layer?)"),
        ("model_of_test.py:nope", "model_of_test.py: error: no attribute nope\n"),  # not the module np
        ("model_of_test.py:main", "model_of_test.py:main: error: main runs a whole program"),
        ("model_of_test.py:plain", "error: not a compiled function but int"),
        (
            "model_of_test.py:fails",
            "model_of_test.py:21: error: ZeroDivisionError: division by zero\nreturn 1 / 0",
        ),
        ("model_of_test.py:leaves", "error: it ended the program with exit status 3"),
        ("wrong.py:f", "wrong.py:2:1: error: SyntaxError"),
        ("none.py:f", "none.py: error: no such file"),
        ("no.such.module:f", "no.such.module: error: no module of this name"),
        ("f.tcir --fn g", "f.tcir: error: nothing to show for --fn g (there is f)"),
        ("empty.py", "(there is no compiled function; name one, or what builds one: empty.py:NAME)"),
        (".", ".: error: neither a Python file nor the name of a module"),
        ("some/folder:f", "some/folder: error: neither a Python file nor the name of a module"),
    ],
)
def test_what_cannot_be_dumped_is_1(here: Path, target: str, words: str, capsys: Output) -> None:
    (here / "wrong.py").write_text("\n)\n")
    (here / "empty.py").write_text("")
    assert run(["dump", *target.split()]) == 1
    err = capsys.readouterr().err
    assert words in err and "Traceback" not in err


def test_names_are_found_by_a_regular_expression(here: Path, capsys: Output) -> None:
    assert run(["dump", "f.tcir", "--fn", "("]) == 2
    assert "tcc: error: Invalid value for --fn: '(' is not a regular expression" in capsys.readouterr().err


def test_without_a_command_the_help_is_printed_once(capsys: Output) -> None:
    assert run([]) == 2
    printed = capsys.readouterr()
    assert run(["--help"]) == 0
    assert (printed.out, printed.err) == ("", capsys.readouterr().out)


def test_help_says_what_each_command_does_on_one_line(capsys: Output) -> None:
    assert run(["--help"]) == 0
    commands = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert len(commands) == len(cli.commands) and all(line.endswith(".") for line in commands)
    assert not any(line.endswith("...") for line in commands)


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf"])
def test_profile_wants_a_length_of_time(here: Path, seconds: str, capsys: Output) -> None:
    assert run(["profile", "model_of_test.py:layer", "--seconds", seconds]) == 2
    assert "--seconds: wanted more than 0 and at most 600, got" in capsys.readouterr().err


def test_profile_makes_one_call_at_the_least(here: Path, capsys: Output) -> None:
    assert run(["profile", "model_of_test.py:layer", "--size", "x_0=3", "--seconds", "1e-9"]) == 0
    assert "us a call" in capsys.readouterr().out


def test_profile_fills_the_shared_variables_of_a_text(here: Path, capsys: Output) -> None:
    assert run(["dump", "model_of_test.py:layer", "--stage", "values"]) == 0
    Path("dumped.tcir").write_text(capsys.readouterr().out)
    assert run(["profile", "dumped.tcir", "--size", "x_0=3", "--seconds", "1e-9"]) == 0
    assert "us a call" in capsys.readouterr().out
    assert run(["bench", "dumped.tcir"]) == 4
    assert "tcc compile dumped.tcir --emit bundle" in capsys.readouterr().err


def test_explain_says_why_a_function_was_compiled_again(here: Path, capsys: Output) -> None:
    assert run(["explain", "model_of_test.py:twice"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("@twice\n  1. first call: ")
    assert re.search(r"^  2\. x_0 changed: .*left to run time: x_0$", out, re.M)


# -- the compiler itself -----------------------------------------------------------------------------------------


def test_ops_lists_every_row_and_tells_about_one(capsys: Output) -> None:
    assert run(["ops"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(TABLE)
    assert run(["ops", "sum"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("sum(x) {axes, dtype = none}\n") and "gradient: yes" in out


def test_every_op_can_be_told_about() -> None:
    from tcc.tools.describe import op_text

    for row in TABLE.values():
        assert op_text(row).startswith(row.name) and row.doc


def test_passes_lists_the_pipeline(capsys: Output) -> None:
    assert run(["passes"]) == 0
    out = capsys.readouterr().out
    assert set(re.findall(r"^ ?\d+  (\w+)", out, re.MULTILINE)) == set(PASSES)
    assert "{max_ops = " in out and max(map(len, out.splitlines())) <= 140


def test_cache_commands(here: Path, capsys: Output) -> None:
    from tcc.runtime.cache import open_default

    kept = open_default()
    for name in ("a" * 64, "b" * 64):
        kept.put(name, b"data")
    assert run(["cache", "path"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder.parent == here / "cache"
    assert run(["cache"]) == 0
    assert capsys.readouterr().out.startswith(f"2 entries in {folder}, 0.0 MB")
    (folder / "aa" / ("a" * 64)).write_bytes(b"spoiled")
    assert run(["cache", "verify"]) == 0
    assert capsys.readouterr().out == f"2 entries in {folder}, 1 were spoiled and are removed\n"
    assert run(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"removed 1 entries from {folder}\n"


def test_doctor_reports_versions_settings_and_problems(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("TCC_VERIFY", "2")
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^compiles and runs +yes", out, re.M) and re.search(r"^TCC_VERIFY +=? ?= 2", out, re.M)
    monkeypatch.setenv("TCC_THREADS", "many")
    assert run(["doctor"]) == 1
    assert "TCC_THREADS must be a number from 1 to 256, got 'many'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["NO_COLOR", "COLOR"])
def test_colour_only_on_a_terminal_that_wants_it(here: Path, name: str) -> None:
    import pty

    main, side = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {name: "1"}
    subprocess.run(
        [sys.executable, "-m", "tcc", "opt", "none.tcir"], stderr=side, env=environment, check=False
    )
    os.close(side)
    assert ("\033[" in os.read(main, 1000).decode()) == (name == "COLOR")
    os.close(main)
