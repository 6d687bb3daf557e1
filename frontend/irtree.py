"""A compiled function's graph, after the passes, in the form of `debugprint`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tcc.graph import ShownOp
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.ops.control import called
from tcc.passes.epilogue import WITH_EPILOGUE
from tcc.printing import INFIX, THEANO_NAMES, TITLES
from tcc.user_op import probed_by

FILLED = 20  # characters of a constant before it is cut


def tree(
    func: Func, ident: Callable[[Any], str], depth: int, print_type: bool, print_clients: bool = False
) -> list[str]:
    """One line for each value that the results hang on: the op, its id, its name, its number in the order of running, and
    with `print_clients` what reads it, if several do."""
    order = {op: number for number, op in enumerate(op for op in func.body.ops if op.name != "yield")}
    return trees(func.body.yields, order, ident, depth, print_type, print_clients)


def trees(
    roots: Sequence[Value],
    order: Mapping[Op, int],
    ident: Callable[[Any], str],
    depth: int,
    print_type: bool,
    print_clients: bool = False,
) -> list[str]:
    """One line for each value that the roots hang on; `order` numbers those operations that are to have a number."""
    lines: list[str] = []
    done: set[Op] = set()
    for result in roots:
        stack = [(result, "", "", depth)]
        while stack:
            value, prefix, below, left = stack.pop()
            op = value.op
            kind = f" <{value.type}>" if print_type else ""
            if op is None or op.name == "const":
                text = value.name if op is None else constant_text(op)
                lines.append(f"{prefix}{text} {ident(value)}{kind}")
                continue
            number = f".{value.index}" if len(op.results) > 1 else ""
            mark = ident(op)
            readers = clients(value, order, ident) if print_clients and len(value.uses) > 1 else ""
            lines.append(
                f"{prefix}{op_label(op)}{number} {mark}{kind} '{value.name}'   {order.get(op, '')}{readers}"
            )
            if op in done or left == 1:
                continue
            done.add(op)
            for k, operand in reversed(list(enumerate(op.operands))):
                last = k == len(op.operands) - 1
                stack.append((operand, below + " |", below + ("  " if last else " |"), left - 1))
    return lines


def clients(value: Value, order: Mapping[Op, int], ident: Callable[[Any], str]) -> str:
    """What reads a value: the marks of operations and their numbers in the order of running."""
    readers = [
        ("output", "") if op.name == "yield" else (ident(op), order.get(op, "")) for op, _ in value.uses
    ]
    return f" clients:{readers}"


class Operation:
    """An operation as a monitor sees it: its `op`, its `inputs` and `outputs`, its `name` in the IR and the user's line, `loc`."""

    def __init__(self, ir_op: Op) -> None:
        self.ir_op = ir_op
        self.name, self.loc = ir_op.name, ir_op.loc
        self.inputs, self.outputs = list(ir_op.reads), list(ir_op.results)

    @property
    def op(self) -> Any:
        """The user's op, or what stands for a row under Theano's name."""
        function = self.ir_op.attrs.get("function")
        early = probed_by(function)  # to tell its sizes
        own = called(function if early is None else early.function).op
        return ShownOp(op_label(self.ir_op), self.ir_op.defn) if own is None else own

    def __str__(self) -> str:
        return f"{self.op}({', '.join(map(value_text, self.inputs))})"


def value_text(value: Value) -> str:
    """A value by its name, or by what made it."""
    op = value.op
    if op is not None and op.name == "const":
        return constant_text(op)
    return value.name or ("?" if op is None else f"{op_label(op)}.{value.index}")


def constant_text(op: Op) -> str:
    text = str(op.attrs["value"])
    if op.result.type.shape and not getattr(op.attrs["value"], "shape", ()):
        text = f"({','.join(map(str, op.result.type.shape))}) of {text}"
    if len(text) > FILLED:
        text = text[:10] + ".." + text[-10:]
    return f"TensorConstant{{{text}}}"


def op_label(op: Op) -> str:
    """`Elemwise{add}`, `Elemwise{Composite{tanh((i0 + i1))}}`, `dot`: Theano's names after optimisation."""
    if op.name == "fuse":
        return f"Elemwise{{Composite{{{'; '.join(reduced(op, texts(op.block)))}}}}}"
    if op.name in WITH_EPILOGUE and op.blocks:
        name = "Gemm" if op.name == "matmul" else TITLES.get(op.name, op.name)
        return f"{name}{{{'; '.join(texts(op.block))}}}"
    if op.name == "call":
        return str(op.attrs["name"])
    if op.defn.scalar:
        return f"Elemwise{{{THEANO_NAMES.get(op.name, op.name)}}}"
    return TITLES.get(op.name, op.name)


def reduced(op: Op, parts: Sequence[str]) -> list[str]:
    """The expressions of a fused op with the reductions that are done as it runs."""
    how = op.attrs["reduce"] or [""] * len(parts)
    return [f"{h}({p})" if h else p for h, p in zip(how, parts)]


def texts(block: Block) -> list[str]:
    """What a block yields, as expressions over its parameters i0, i1, ..."""
    return filled(block, [f"i{k}" for k in range(len(block.params))])


def filled(block: Block, given: Sequence[str]) -> list[str]:
    """What a block yields, as expressions over the texts given for its parameters."""
    known: dict[Value, str] = dict(zip(block.params, given, strict=True))
    for op in block.ops:
        known.update(zip(op.results, expressions(op, [known.get(v, v.name or "?") for v in op.operands])))
    return [known.get(v, v.name or "?") for v in block.yields]


def expressions(op: Op, parts: Sequence[str]) -> list[str]:
    """An op's results, as expressions over the texts of its operands."""
    if op.name == "fuse":
        return reduced(op, filled(op.block, parts))
    if op.name == "size":
        return [str(op.attrs["value"])]
    if op.name == "const":
        shape = getattr(op.attrs["value"], "shape", ())
        return [constant_text(op) if shape else str(op.attrs["value"])]
    if op.name in INFIX and len(parts) >= 2:
        both = f"({parts[0]} {INFIX[op.name]} {parts[1]})"
        return filled(op.block, [both, *parts[2:]]) if op.blocks else [both]
    if op.name == "broadcast":
        return [parts[0]]
    if op.name == "dimshuffle" and list(op.attrs["order"]) == [1, 0]:
        return [f"{parts[0]}.T"]
    if op.name == "call":
        title = str(op.attrs["name"])
    else:
        title = THEANO_NAMES.get(op.name) or TITLES.get(op.name, op.name)
    text = f"{title}({', '.join(parts)})"
    return [text] if len(op.results) == 1 else [f"{text}.{k}" for k in range(len(op.results))]


def lines(func: Func) -> list[str]:
    """Each result but those that are updates, as an expression over the parameters."""
    every = filled(func.body, [p.name for p in func.body.params])
    return every[: len(every) - len(func.attrs.get("updates", ()))]
