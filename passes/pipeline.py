"""The order of the passes, and pipelines written as text."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

from tcc.ir import knobs
from tcc.passes.accumulate import accumulate
from tcc.passes.binds import binds
from tcc.passes.canonicalize import canonicalize
from tcc.passes.checks import checks
from tcc.passes.cse import cse
from tcc.passes.dce import dce
from tcc.passes.expand import expand
from tcc.passes.fold import fold
from tcc.passes.fuse import fuse
from tcc.passes.hoist import hoist
from tcc.passes.lift import lift
from tcc.passes.manager import Context, Pass, Step
from tcc.passes.merge import merge
from tcc.passes.panels import LOOP_BYTES, panels
from tcc.passes.parts import parts
from tcc.passes.place import place
from tcc.passes.plan import plan
from tcc.passes.remake import remake
from tcc.passes.transfer import transfer

VALUES: list[Step] = [
    Step(fold, {}),
    Step(hoist, {}),  # so that scans of equal steps have equal bodies
    Step(cse, {}),
    Step(parts, {}),
    Step(merge, {}),
    Step(binds, {}),
    Step(canonicalize, {}),
    Step(checks, {}),
    Step(dce, {}),
    Step(hoist, {}),
    Step(lift, {}),
    Step(expand, {}),
    Step(canonicalize, {"composites": False}),
    Step(accumulate, {}),  # `lift` leaves transposes and sums with 0 around the products of all steps
    Step(fold, {}),
    Step(cse, {}),
    Step(dce, {}),
    Step(fuse, {}),
    Step(remake, {}),
    Step(dce, {}),
]

CPU: list[Step] = [*VALUES, Step(panels, {}), Step(place, {}), Step(plan, {})]

# A GPU has its own products of halves and bytes.
_ON_GPU: dict[str, dict[str, Any]] = {
    "expand": {"half_products": True, "widening": "i8 u8 bf16 f16", "lapack": "always"},
    "fuse": {
        "epilogues": "matmul matmul_widening conv conv_input",
        "columns": True,
        "most_totals": 4096,  # what a block has shared memory for
    },
    "place": {"pieces": False, "batch_axes": 1},
}
GPU: list[Step] = [Step(s.function, {**s.options, **_ON_GPU.get(s.name, {})}) for s in CPU]
GPU.append(Step(transfer, {}))

# Without these the code generator does not take the result; the others only make it better.
NEEDED = frozenset({"expand", "fuse", "place", "plan", "transfer"})

PASSES: dict[str, Pass] = {step.name: step.function for step in GPU}
OPTIONAL = frozenset(PASSES) - NEEDED

_STEP = re.compile(r"\s*(\w+)\s*(?:\{([^{}]*)\})?\s*(,|$)")


def default_pipeline() -> list[Step]:
    """From what the frontend makes to fused values."""
    return list(VALUES)


def cpu_pipeline(
    *,
    bf16_products: bool = False,
    panel_bytes: int = 0,
    loop_bytes: int = LOOP_BYTES,
    keep: bool = False,
    python: bool = True,
) -> list[Step]:
    """From what the frontend makes to placed ops and a planned arena, for a CPU with or without instructions for bfloat16, and
    with factors as panels whose rows have `panel_bytes`, if any, from `loop_bytes` on before a loop whose steps read them, and
    those of shared variables from call to call if it can `keep` them.  Without `python` whatever can be is native."""
    how = {"row_bytes": panel_bytes, "loop_bytes": loop_bytes, "keep": keep}
    options: dict[str, dict[str, Any]] = {"panels": how} if panel_bytes else {}
    options["expand"] = {} if python else {"lapack": "never"}
    if bf16_products:
        options["expand"]["widening"] = "i8 u8 bf16"
    return [Step(s.function, options.get(s.name, s.options)) for s in CPU]


def gpu_pipeline() -> list[Step]:
    """The same for a GPU."""
    return list(GPU)


def context_from_knobs() -> Context:
    """A context as the environment wants it; ValueError names a pass in TCC_SKIP that cannot be left out."""
    skip = knobs.SKIP.get()
    for name in sorted(skip - OPTIONAL):
        why = "is needed" if name in PASSES else "is no pass"
        raise ValueError(f"TCC_SKIP: {name} {why} (these can be left out: {', '.join(sorted(OPTIONAL))})")
    dump = knobs.DUMP.get()
    for name in sorted(dump - {"all", *PASSES, *knobs.STAGES}):
        raise ValueError(
            f"TCC_DUMP: {name} is no pass and no stage (there are {', '.join([*PASSES, *knobs.STAGES])})"
        )
    after = frozenset() if "all" in dump else dump
    return Context(
        verify=knobs.VERIFY.get(), dump=knobs.DUMP_DIR.get() if dump else None, dump_after=after, skip=skip
    )


def parse_pipeline(text: str) -> list[Step]:
    """Reads `canonicalize,fuse{max_ops=8}`.  ValueError names an unknown pass or option, or what cannot be read."""
    steps: list[Step] = []
    at = 0
    while at < len(text.rstrip()):
        m = _STEP.match(text, at)
        if m is None:
            raise ValueError(
                f"cannot read the pipeline at {text[at:]!r} (it looks like canonicalize,fuse{{max_ops=8}})"
            )
        name, at = m[1], m.end()
        if name not in PASSES:
            raise ValueError(f"no pass named {name} (there are {', '.join(PASSES)})")
        steps.append(Step(PASSES[name], _options(name, m[2] or "")))
    return steps


def pass_options(function: Pass) -> dict[str, Any]:
    """The options of a pass and their defaults: its keyword-only arguments."""
    found = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in found if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _options(name: str, text: str) -> dict[str, Any]:
    known = pass_options(PASSES[name])
    options: dict[str, Any] = {}
    for item in filter(str.strip, text.split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError(f"option {item.strip()!r} of {name} has no value (write {item.strip()}=...)")
        if key not in known:
            raise ValueError(f"{name} has no option {key} (it has {', '.join(known) or 'none'})")
        options[key] = _value(name, key, value, type(known[key]))
    return options


def _value(name: str, key: str, text: str, kind: type) -> Any:
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (SyntaxError, ValueError):
        value = text
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"option {key} of {name} is {kind.__name__}, got {text!r}")
    return value
