"""Text about the compiler itself, printed from its own tables."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Sequence

from tcc.ir import knobs, ops
from tcc.ir.optable import REQUIRED, TABLE, OpDef
from tcc.ir.printer import attr_text
from tcc.passes.pipeline import CPU, GPU, OPTIONAL, pass_options

assert ops  # fills the table
WIDTH = 100


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Rows with all but their last column padded to one width."""
    table = [list(r) for r in rows]
    widths = [max(len(r[k]) for r in table) for k in range(len(table[0]) - 1)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(r, widths)), r[-1]]).rstrip() for r in table)


# -- tcc ops -----------------------------------------------------------------------------------------------------


def ops_table() -> str:
    return columns((row.name, signature(row), how(row)) for row in TABLE.values())


def signature(row: OpDef) -> str:
    attrs = ", ".join(k if v is REQUIRED else f"{k} = {attr_text(v)}" for k, v in row.attrs.items())
    return f"({row.operands})" + (f" {{{attrs}}}" if attrs else "") + " {...}" * row.blocks


def how(row: OpDef) -> str:
    """How code is made for it."""
    if row.scalar:
        return "scalar"
    if row.expand is not None:
        return "expand"
    if row.kernel:
        return "kernel"
    return "view" if row.view is not None else ""


def op_text(row: OpDef) -> str:
    """Everything that its row says."""
    facts = [
        (
            "code",
            {"scalar": f"scalar body {row.scalar}", "expand": "rewritten into other ops"}.get(
                how(row), how(row)
            ),
        ),
        ("gradient", "yes" if row.grad is not None else "no"),
        ("result may take the memory of", ", ".join(map(row.operand_name, row.reuse))),
        ("result is a view of", row.operand_name(row.view) if row.view is not None else ""),
        ("may end the run with an error", "yes" if row.fails else ""),
        ("refuses some values", "yes" if row.raises else ""),
        ("must not be merged or dropped", "" if row.pure else "yes"),
        ("operands commute", "yes" if row.commutes else ""),
        ("sample operands", "; ".join(", ".join(s.types) or "none" for s in row.samples)),
    ]
    lines = [
        f"{row.name}{signature(row)}",
        *textwrap.wrap(row.doc, WIDTH, initial_indent="  ", subsequent_indent="  "),
    ]
    return "\n".join([*lines, *(f"  {name}: {text}" for name, text in facts if text)])


# -- tcc passes --------------------------------------------------------------------------------------------------


def passes_table() -> str:
    """The pipeline in its order, what only GPUs have last; a pass that stands in it twice is explained once."""
    rows = []
    known: set[str] = set()
    for number, step in enumerate([*CPU, *GPU[len(CPU) :]]):
        options = {**pass_options(step.function), **step.options}
        text = ", ".join(f"{k} = {v}" for k, v in options.items())
        doc = "" if step.name in known else first_sentence(step.function.__doc__ or "")
        skip = "" if step.name in OPTIONAL else "needed"
        first, *more = [*textwrap.wrap(doc, WIDTH), *([f"{{{text}}}"] if text else [])] or [""]
        rows += [(f"{number:2}", step.name, skip, first), *(("", "", "", line) for line in more)]
        known.add(step.name)
    return columns(rows)


def first_sentence(doc: str) -> str:
    return inspect.cleandoc(doc).split("\n\n")[0].replace("\n", " ").split(".  ")[0].removesuffix(".")


# -- settings ----------------------------------------------------------------------------------------------------


def knobs_table() -> str:
    """Every setting: its value now if it is not the default, what it may be, and what it does."""
    rows = []
    for k in knobs.TABLE.values():
        try:
            value = k.get()
            now = "" if value == k.default else f"= {_plain(value)}"
        except knobs.KnobError as e:
            now = f"WRONG: {e}"
        rows.append(
            (k.name, now, f"{k.doc} ({k.wanted})" + ("; part of cache keys" if k.changes_code else ""))
        )
    return columns(rows)


def _plain(value: object) -> str:
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    if isinstance(value, dict):
        return ",".join(f"{k}={v}" for k, v in value.items())
    return str(value)
