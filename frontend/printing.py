"""How variables, graphs and functions print: Theano's formats, which programs match."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

import numpy as np

from tcc.graph import Apply, shown_inputs, toposort
from tcc.variable import Constant, TensorConstant, Variable, as_variable

# Names of elementwise rows in Theano where they differ.
THEANO_NAMES = {
    "abs": "abs_",
    "acos": "arccos",
    "acosh": "arccosh",
    "and": "and_",
    "asin": "arcsin",
    "asinh": "arcsinh",
    "atan": "arctan",
    "atan2": "arctan2",
    "atanh": "arctanh",
    "div": "true_div",
    "floordiv": "int_div",
    "ne": "neq",
    "not": "invert",
    "or": "or_",
    "reciprocal": "inv",
    "rint": "round_half_to_even",
    "round_half_away": "round_half_away_from_zero",
    "sign": "sgn",
    "where": "switch",
}
BARE = frozenset({"sigmoid", "softplus"})  # elementwise ops that print without Elemwise{...}
TITLES = {
    "argmax": "Argmax",
    "argmin": "Argmin",
    "argsort": "ArgSortOp",
    "argtopk": "TopKOp",
    "concat": "Join",
    "cumprod": "CumprodOp",
    "cumsum": "CumsumOp",
    "eye": "Eye",
    "gather": "AdvancedSubtensor",
    "iota": "ARange{dtype='int64'}",
    "log_softmax": "LogSoftmax",
    "matmul": "dot",
    "rebroadcast": "Rebroadcast",
    "scan": "for{cpu,scan_fn}",
    "slice": "Subtensor",
    "softmax": "Softmax",
    "sort": "SortOp",
    "xent": "CrossentropySoftmax1Hot",
}
ACCUMULATORS = {"float16": "float32", "bfloat16": "float32", "float32": "float64"}
FILLED = 20  # characters of a constant before it is cut


def label(node: Apply) -> str:
    """The op's name as Theano prints it."""
    if node.shown is not None:
        return node.shown.label
    name = node.name
    if name == "call":
        return str(node.attrs["name"])
    if name == "packed":
        return str(node.attrs["op"])
    if name == "cast":
        return f"Elemwise{{Cast{{{node.result.type.dtype}}}}}"
    if name in ("sum", "prod"):
        return f"{name.title()}{{{_axes(node)}acc_dtype={_accumulator(node)}}}"
    if name in ("any", "all"):
        axes = node.attrs["axes"]
        return name.title() + ("" if _whole(node) else "{" + ", ".join(map(str, axes)) + "}")
    if name in ("max", "min"):
        return name.title() + ("" if _whole(node) else f"{{axis={list(node.attrs['axes'])}}}")
    if name == "dimshuffle":
        return "InplaceDimShuffle{" + ",".join("x" if a == -1 else str(a) for a in node.attrs["order"]) + "}"
    if name == "shape_of":
        return f"Shape_i{{{node.attrs['axis']}}}"
    if name == "reshape":
        return f"Reshape{{{node.result.type.ndim}}}"
    if name in ("insert", "scatter"):
        kind = "Advanced" if name == "scatter" else ""
        return f"{kind}IncSubtensor{{{'Set' if node.attrs['mode'] == 'set' else 'Inc'}}}"
    if name in BARE:
        return name
    if node.defn.scalar or name == "clip":
        return f"Elemwise{{{THEANO_NAMES.get(name, name)},no_inplace}}"
    return TITLES.get(name, name)


def _whole(node: Apply) -> bool:
    return len(node.attrs["axes"]) == int(node.operands[0].type.ndim)


def _axes(node: Apply) -> str:
    return "" if _whole(node) else f"axis={list(node.attrs['axes'])}, "


def _accumulator(node: Apply) -> str:
    dtype = str(node.result.type.dtype)
    return ACCUMULATORS.get(dtype, dtype)


def visible(v: Any) -> Any:
    """The variable that the user wrote: implicit broadcasts and casts are passed over."""
    while v.owner is not None and v.owner.implicit:
        v = v.owner.operands[0]
    return v.origin if isinstance(v, TensorConstant) and v.origin is not None else v


def variable_text(v: Any) -> str:
    """A name, the op that made it, or a type."""
    if v.name is not None:
        return str(v.name)
    if isinstance(v, Constant):
        return constant_text(v)
    if v.owner is None:
        return f"<{v.type}>"
    if v.owner.implicit:
        return variable_text(v.owner.operands[0])
    return f"{label(v.owner)}.{v.index}"


def constant_text(v: Constant) -> str:
    """`TensorConstant{3}`; equal elements print as one, and long texts are cut."""
    if not isinstance(v, TensorConstant):
        text = str(v.data)
        return f"Constant{{{text if len(text) <= FILLED else text[:10] + '...' + text[-10:]}}}"
    data = v.origin.data if v.origin is not None else v.data
    text = str(data)
    if data.ndim and data.size and (data == data.flat[0]).all():
        text = f"{data.shape} of {data.flat[0]}"
    if len(text) > FILLED:
        text = text[:10] + ".." + text[-10:]
    return f"TensorConstant{{{text}}}"


# -- pp --------------------------------------------------------------------------------------------------------------

INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "matmul": "\\dot",
}


def pp(v: Any) -> str:
    """The expression as one line of text."""
    if not isinstance(v, Variable):
        return pp_function(v)
    done: dict[Any, str] = {}
    target = visible(v)
    stack: list[Any] = [target]
    while stack:
        top = stack[-1]
        if top in done:
            stack.pop()
            continue
        leaf = top.owner is None or (top is not target and _leaf(top))
        needed = [] if leaf else [x for x in map(visible, shown_inputs(top.owner)) if x not in done]
        if needed:
            stack.extend(reversed(needed))
            continue
        done[top] = variable_text(top) if leaf else _expression(top.owner, done)
        stack.pop()
    return done[target]


pprint = pp


def pp_function(f: Any) -> str:
    """What a function computes, as the passes leave it if it is compiled."""
    optimised = getattr(f, "optimised", None)
    if optimised is not None:
        from tcc.irtree import lines

        texts = lines(optimised())
    else:
        texts = [pp(o) for o in f.output_variables]
    return texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"


def _leaf(v: Any) -> bool:
    """Whether an inner variable prints as its name."""
    return v.name is not None and not _transposed(v.owner)


def _transposed(node: Apply) -> bool:
    return node.name == "dimshuffle" and tuple(node.attrs["order"]) == tuple(
        reversed(range(node.operands[0].type.ndim))
    )


def _expression(node: Apply, done: dict[Any, str]) -> str:
    texts = [done[visible(x)] for x in shown_inputs(node)]
    title = label(node)
    if node.index is not None and title.startswith(("Subtensor", "AdvancedSubtensor")):
        return f"{texts[0]}[{', '.join(_index_text(i, done) for i in node.index[1])}]"
    if title == "dot":
        return f"({texts[0]} \\dot {texts[1]})"
    if node.shown is None and node.name in INFIX and len(texts) == 2:
        return f"({texts[0]} {INFIX[node.name]} {texts[1]})"
    if node.name == "neg":
        return f"(-{texts[0]})"
    if node.name == "dimshuffle" and node.shown is None:
        order = [a for a in node.attrs["order"] if a != -1]
        if (
            order == list(range(node.operands[0].type.ndim))
            and list(node.attrs["order"])[-len(order) :] == order
        ):
            return texts[0]
        if _transposed(node):
            return f"{texts[0]}.T"
        return f"{title.removeprefix('Inplace')}({texts[0]})"
    if node.name == "second":
        title = "fill"
    elif title.startswith("Elemwise{") and title.endswith(",no_inplace}"):
        title = title[len("Elemwise{") : -len(",no_inplace}")]
    return f"{title}({', '.join(texts)})"


def _index_text(i: Any, done: dict[Any, str]) -> str:
    if isinstance(i, slice):
        start, stop, step = (None if b is None else _index_text(b, done) for b in (i.start, i.stop, i.step))
        return f"{start or ''}:{stop or ''}" + (f":{step}" if step is not None else "")
    if isinstance(i, Variable):
        return done.get(visible(i)) or variable_text(visible(i))
    if i is None or i is Ellipsis:
        return "None" if i is None else "..."
    return f"Constant{{{i}}}"


# -- debugprint ------------------------------------------------------------------------------------------------------


def debugprint(
    obj: Any,
    depth: int = -1,
    print_type: bool = False,
    file: Any = None,
    ids: str = "CHAR",
    stop_on_name: bool = False,
    done: dict[Any, str] | None = None,
    print_storage: bool = False,
    print_clients: bool = False,
    used_ids: dict[Any, str] | None = None,
) -> Any:
    """The graph as an indented tree: of a variable, a list of them, an operation that a mode shows to its callbacks, or a
    function (after the passes, if it is compiled).

    `ids` says what the nodes are marked with: letters ("CHAR"), numbers ("int"), `id` ("id") or nothing (""). With `print_clients`
    the results of a compiled function's operations that are read more than once tell by what. Theano's `print_storage` does
    nothing: no result stays in memory.
    Goes to `file` (standard output without one); `file="str"` returns the text.
    """
    out = StringIO()
    ids_given: dict[Any, str] = {} if used_ids is None else used_ids
    shown: dict[Any, str] = {} if done is None else done
    scans: list[Apply] = []
    optimised = getattr(obj, "optimised", None)
    operation: Any = getattr(obj, "ir_op", None)  # of what a monitor is told
    if optimised is not None or operation is not None:
        from tcc.irtree import tree, trees

        def ident(key: Any) -> str:
            return _ident(key, ids, ids_given)

        if optimised is not None:
            lines = tree(optimised(), ident, depth, print_type, print_clients)
        else:
            lines = trees(operation.results, {}, ident, depth, print_type)
        out.write("".join(line + "\n" for line in lines))
        obj = []
    for root, order in _roots(obj):
        _tree(root, out, depth, print_type, stop_on_name, ids, ids_given, shown, order, scans)
    if scans:
        out.write("\nInner graphs of the scan ops:\n\n")
        for node in scans:
            out.write(f"{label(node)} {_ident(node, ids, ids_given)} ''   \n")
            assert node.body is not None
            for result in node.body.results:
                _tree(result, out, depth, print_type, stop_on_name, ids, ids_given, shown, {}, [], " >")
    if file == "str":
        return out.getvalue()
    (file or sys.stdout).write(out.getvalue())
    return file


def _roots(obj: Any) -> Iterable[tuple[Any, dict[Apply, int]]]:
    if isinstance(obj, Variable):
        yield obj, {}
    elif isinstance(obj, list | tuple):
        for item in obj:
            yield from _roots(item)
    elif isinstance(obj, Apply):
        for result in obj.results:
            yield result, {}
    elif hasattr(obj, "output_variables"):
        outputs = obj.output_variables
        seen = _printed(outputs)
        order = {n: i for i, n in enumerate(n for n in toposort(outputs) if n in seen)}
        for v in outputs:
            yield v, order
    else:
        raise TypeError("debugprint cannot print an object of this type", obj)


def _printed(outputs: Iterable[Any]) -> set[Apply]:
    """The nodes that show."""
    found: set[Apply] = set()
    stack = [visible(v) for v in outputs]
    while stack:
        node = stack.pop().owner
        if node is not None and node not in found:
            found.add(node)
            stack += map(visible, shown_inputs(node))
    return found


def _ident(key: Any, ids: str, given: dict[Any, str]) -> str:
    """`[id A]`: the mark of a node, the next one if it has none yet."""
    if ids == "":
        return ""
    if key not in given:
        number = len(given)
        if ids == "int":
            text = str(number)
        elif ids == "id":
            text = str(id(key))
        else:
            text = ""
            number += 1
            while number:
                number, digit = divmod(number - 1, 26)
                text = chr(ord("A") + digit) + text
        given[key] = f"[id {text}]"
    return given[key]


def _tree(
    root: Any,
    out: StringIO,
    depth: int,
    print_type: bool,
    stop_on_name: bool,
    ids: str,
    given: dict[Any, str],
    done: dict[Any, str],
    order: dict[Apply, int],
    scans: list[Apply],
    first: str = "",
) -> None:
    stack: list[tuple[Any, str, str, int]] = [(visible(root), first, first and "  ", depth)]
    while stack:
        v, prefix, below, left = stack.pop()
        node = v.owner
        kind = f" <{v.type}>" if print_type else ""
        if node is None:
            ident = _ident(v, ids, given)
            out.write(f"{prefix}{variable_text(v)} {ident}{kind}\n")
            continue
        again = node in done
        ident = _ident(node, ids, given)
        output = f".{v.index}" if len(node.results) > 1 else ""
        name = v.name or ""
        number = str(order[node]) if node in order else ""
        out.write(f"{prefix}{label(node)}{output} {ident}{kind} '{name}'   {number}\n")
        if again or left == 1 or (stop_on_name and v.name):
            continue
        done[node] = ident
        if node.body is not None:
            scans.append(node)
        children = [visible(x) for x in shown_inputs(node)]
        for k, child in reversed(list(enumerate(children))):
            last = k == len(children) - 1
            stack.append((child, below + " |", below + ("  " if last else " |"), left - 1))


class Print:
    """`Print("message")(v)` is v; when it is computed, its value is printed."""

    def __init__(self, message: str = "", attrs: Sequence[str] = ("__str__",)) -> None:
        self.message, self.attrs = message, tuple(attrs)

    def __call__(self, x: Any) -> Any:
        from tcc.user_op import call

        x = as_variable(x)
        return call("Print{" + f"message='{self.message}'" + "}", self._print, [x], [x.type], [x])[0]

    def _print(self, x: np.ndarray[Any, Any]) -> list[Any]:
        for attr in self.attrs:
            value = getattr(x, attr)
            print(self.message, attr, "=", value() if callable(value) else value)
        return [x]


def pydotprint(obj: Any, outfile: str | None = None, format: str = "png", **_: Any) -> None:
    """Draws the graph of a variable or function into a file; RuntimeError without pydot and graphviz."""
    try:
        import pydot
    except ImportError as e:
        raise RuntimeError(
            "Failed to import pydot. You must install graphviz and either pydot or pydot-ng for `pydotprint` to work."
        ) from e
    graph = pydot.Dot(graph_type="digraph")
    for root, _order in _roots(obj):
        for node in _printed([root]):
            graph.add_node(pydot.Node(str(id(node)), label=label(node), shape="ellipse"))
            for x in map(visible, shown_inputs(node)):
                source: Any = x if x.owner is None else x.owner
                if x.owner is None:
                    graph.add_node(pydot.Node(str(id(x)), label=variable_text(x), shape="box"))
                graph.add_edge(pydot.Edge(str(id(source)), str(id(node))))
    graph.write(outfile or f"graph.{format}", format=format)
