"""Type rules: what they refuse, which sizes they report as unequal, and the rows with blocks and places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func
from tcc.ir.dims import Size, SizeMismatch, name, parse_size
from tcc.ir.interpret import run
from tcc.ir.optable import TABLE, complete_attrs
from tcc.ir.types import Type, parse_type

n, m = name("n"), name("m")


def types(text: str) -> list[Type]:
    return [parse_type(t) for t in text.split()]


def infer(op: str, operands: str, blocks: Sequence[Block] = (), **attrs: Any) -> str:
    """The types of the results, as text."""
    defn = TABLE[op]
    return " ".join(map(str, defn.infer(types(operands), complete_attrs(defn, attrs), blocks)))


WINDOW = {"start": (0,), "size": (3,), "step": (1,)}
F4 = parse_type("f32[4]")

REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("exp", "i64[3]", {}, "exp: operand a must be of a float or complex type, got i64[3]"),
    ("neg", "bool[3]", {}, "neg: operand a must be of a number type, got bool[3]"),
    ("and", "f32[] f32[]", {}, "and: operand a must be of a bool or integer type"),
    ("mod", "c64[] c64[]", {}, "mod: operand a must be of an integer or float type"),
    ("add", "f32[3] f64[3]", {}, "add: operands must have one dtype, got (f32[3], f64[3])"),
    ("add", "f32[3] f32[2,3]", {}, "add: operand b must have the shape [3] of a, got f32[2,3]"),
    ("add", "f32[3] f32[4]", {}, "add: axis 0 of operand b must be 3 as that of a, got 4"),
    ("where", "i64[3] f32[3] f32[3]", {}, "where: operand c must be of bool"),
    ("where", "bool[3] f32[3] f64[3]", {}, "where: operands must have one dtype"),
    ("cast", "f32[3]", {"dtype": "float32"}, "cast: no dtype 'float32'"),
    ("cast", "c64[3]", {"dtype": "f32"}, "cast: c64[3] has no value as f32"),
    ("const", "", {"value": [1, 2], "type": F4}, "const: the value has the shape [2], its type is f32[4]"),
    ("iota", "", {"shape": (3,), "axis": 1}, "iota: axis must be within 0..0, got 1"),
    ("eye", "", {"shape": (3,), "dtype": "f32"}, "eye: needs a shape of two sizes, got [3]"),
    ("broadcast", "f32[2,3]", {"shape": (3,)}, "broadcast: f32[2,3] has more axes than [3]"),
    ("broadcast", "f32[2,3]", {"shape": (4, 3)}, "broadcast: axis 0 of x must be 4, got 2"),
    ("dimshuffle", "f32[2,3]", {"order": (0, 0)}, "must name axes of f32[2,3] once each, or -1, got [0, 0]"),
    ("dimshuffle", "f32[2,3]", {"order": (0,)}, "axis 1 of x, which the order leaves out, must be 1, got 3"),
    ("reshape", "f32[2,3]", {"shape": (4,)}, "f32[2,3] has 6 elements, the new shape [4] has 4"),
    ("slice", "f32[3,3]", WINDOW, "slice: f32[3,3] needs 2 starts, sizes and steps, got 1, 1 and 1"),
    ("slice", "f32[2]", WINDOW, "slice: axis 0 of f32[2] has no elements 0 to 2 by 1"),
    ("slice", "f32[5]", {**WINDOW, "step": (-1,)}, "slice: axis 0 of f32[5] has no elements 0 to -2 by -1"),
    ("slice", "f32[5]", {**WINDOW, "step": (0,)}, "slice: the step of axis 0 is 0"),
    (
        "insert",
        "f32[5] f32[4]",
        {**WINDOW},
        "insert: axis 0 of operand v must be 3 as that of the window, got 4",
    ),
    ("insert", "f32[5] f32[3]", {**WINDOW, "mode": "max"}, "insert: the mode must be set or add, got 'max'"),
    (
        "concat",
        "f32[3] f32[3,1]",
        {"axis": 0},
        "concat: operands must have one rank, got f32[3] and f32[3,1]",
    ),
    ("concat", "f32[3,2] f32[4,2]", {"axis": 1}, "concat: axis 0 of operand 1 must be 3, got 4"),
    ("concat", "", {"axis": 0}, "concat: needs an operand"),
    ("gather", "f32[3] f32[2]", {"axes": (0,)}, "gather: operand indices[0] must be of an integer type"),
    ("gather", "f32[3,4] i64[2]", {"axes": (0, 1)}, "one index array for each of its axes [0, 1], got 1"),
    ("gather", "f32[3,4] i64[2] i64[5]", {"axes": (0, 1)}, "axis 0 of operand indices[1] must be 2"),
    ("gather", "f32[3,4] i64[2] i64[2]", {"axes": (1, 0)}, "axes must ascend within 0..1, got [1, 0]"),
    ("scatter", "f32[3,4] f32[2,3] i64[2]", {"axes": (0,)}, "scatter: axis 1 of operand v must be 4"),
    ("check_index", "f32[3]", {"bound": 3}, "check_index: operand i must be of an integer type"),
    ("bind", "i64[]", {"size": 3}, "bind: the size must be a name, got 3"),
    ("bind", "i32[]", {"size": n}, "bind: operand v must be i64[], got i32[]"),
    ("refine", "f32[3,4]", {"type": F4}, "refine: f32[3,4] cannot be f32[4]"),
    ("sum", "f32[3,4]", {"axes": (2,)}, "sum: axes must ascend within 0..1, got [2]"),
    ("sum", "f32[3,4]", {"axes": (1, 1)}, "sum: axes must ascend within 0..1, got [1, 1]"),
    ("sum", "bool[3]", {"axes": (0,)}, "sum: of bool[3] needs the attribute dtype, a number type; got None"),
    ("any", "f32[3]", {"axes": (0,)}, "any: operand x must be of bool"),
    ("argmax", "f32[]", {"axis": 0}, "argmax: axis must be within"),
    ("matmul", "f32[3,4] f64[4,5]", {}, "matmul: operands must have one dtype"),
    ("matmul", "f32[3,4] f32[4]", {}, "matmul: needs [...,m,k] and [...,k,n], got f32[3,4] and f32[4]"),
    ("matmul", "f32[3,4] f32[3,5]", {}, "matmul: the rows of operand b must be 4, got 3"),
    ("matmul", "f32[2,3,4] f32[3,4,5]", {}, "matmul: axis 0 of operand b must be 2, got 3"),
    ("matmul", "f32[3,4] f32[4,5] f32[5]", {}, "matmul: without a block takes 2 operands, got 1 more"),
    ("softmax", "f32[]", {}, "softmax: needs an operand of rank 1 or more, got f32[]"),
    ("xent", "f32[3,4] i64[5]", {}, "xent: the length of labels must be 3, got 5"),
    ("xent", "f32[3] i64[3]", {}, "xent: operand logits must have rank 2, got f32[3]"),
    ("alloc", "", {"type": F4}, "must have a place's type, written &f32[4] @arena, got f32[4]"),
    ("view", "f64[4]", {"type": F4.at("arena")}, "view: cannot see f64[4] as &f32[4] @arena"),
    ("scan", "", {"length": 3}, "scan: takes 1 block, got 0"),
]


@pytest.mark.parametrize("row,operands,attrs,words", REFUSED, ids=[f"{r[0]}-{r[1]}" for r in REFUSED])
def test_refused(row: str, operands: str, attrs: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError) as caught:
        infer(row, operands, **attrs)
    assert words in str(caught.value)


UNEQUAL: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("add", "f32[n] f32[m]", {}, "m", "n"),
    ("where", "bool[2,n] f32[2,n] f32[2,m]", {}, "m", "n"),
    ("broadcast", "f32[n]", {"shape": (2, m)}, "n", "m"),
    ("dimshuffle", "f32[n,3]", {"order": (1,)}, "n", "1"),
    ("reshape", "f32[n,3]", {"shape": (n * 3 + 1,)}, "3*n", "3*n+1"),
    ("insert", "f32[9] f32[n]", {"start": (0,), "size": (m,), "step": (1,)}, "n", "m"),
    ("concat", "f32[n,3] f32[n,m]", {"axis": 0}, "m", "3"),
    ("gather", "f32[5,5] i64[n] i64[m]", {"axes": (0, 1)}, "m", "n"),
    ("scatter", "f32[5,n] f32[3,m] i64[3]", {"axes": (0,)}, "m", "n"),
    ("matmul", "f32[2,n] f32[m,3]", {}, "m", "n"),
    ("xent", "f32[n,3] i64[m]", {}, "m", "n"),
]


@pytest.mark.parametrize("row,operands,attrs,left,right", UNEQUAL, ids=[f"{u[0]}-{u[1]}" for u in UNEQUAL])
def test_sizes_that_should_be_equal(
    row: str, operands: str, attrs: dict[str, Any], left: str, right: str
) -> None:
    with pytest.raises(SizeMismatch) as caught:
        infer(row, operands, **attrs)
    assert (caught.value.left, caught.value.right) == (parse_size(left), parse_size(right))


def test_a_reshape_that_names_cannot_decide_is_left_to_a_check() -> None:
    assert infer("reshape", "f32[n,m]", shape=(parse_size("k"), 3)) == "f32[k,3]"
    assert infer("reshape", "f32[1,12]", shape=(1, m)) == "f32[1,m]"


def test_sizes_stay_expressions() -> None:
    assert infer("concat", "f32[n,3] f32[m,3] f32[2,3]", axis=0) == "f32[m+n+2,3]"
    assert infer("gather", "f32[n,4,m] i64[2,3]", axes=(1,)) == "f32[2,3,n,m]"
    assert infer("matmul", "f32[n,m,4] f32[n,4,m]") == "f32[n,m,m]"
    assert infer("dimshuffle", "f32[n,1,m]", order=(2, -1, 0)) == "f32[m,1,n]"
    assert infer("sum", "f32[n,m]", axes=(0,), dtype="f64") == "f64[m]"


# -- rows with blocks ------------------------------------------------------------------------------------------------


def block(params: str, yields: str = "", names: str = "") -> Block:
    """A block of those parameters that yields the parameters with those numbers."""
    made = Block(types(params))
    Builder(made).op("yield", *(made.params[int(i)] for i in yields.split()))
    return made


def test_scan_hands_on_carries_and_stacks_the_rest() -> None:
    body = block("f32[3] f64[2]", "1 0")
    attrs: dict[str, Any] = {"seqs": 1, "carries": 1, "length": n}
    assert infer("scan", "f32[n,3] f64[2]", [body], **attrs) == "f64[2] f32[n,3]"
    with pytest.raises(SizeMismatch, match="the length of sequence 0 must be n, got m"):
        infer("scan", "f32[m,3] f64[2]", [body], **attrs)
    with pytest.raises(TypeError, match=r"parameters must be \(f32\[3\], f64\[2\]\), got \(f32\[3\]\)"):
        infer("scan", "f32[n,3] f64[2]", [block("f32[3]", "0")], **attrs)
    with pytest.raises(TypeError, match=r"the next carries must be \(f64\[2\]\), got \(f32\[3\]\)"):
        infer("scan", "f32[n,3] f64[2]", [block("f32[3] f64[2]", "0")], **attrs)
    with pytest.raises(TypeError, match="1 sequences and 1 carries, got 1 operands"):
        infer("scan", "f32[n,3]", [body], **attrs)
    with pytest.raises(TypeError, match="sequence 0 must have an axis to walk"):
        infer("scan", "f32[] f64[2]", [body], **attrs)


def test_ifelse_yields_the_same_on_both_sides() -> None:
    def side(value: float, size: Size) -> Block:
        made = Block()
        b = Builder(made)
        b.op("yield", b.const(value, Type("f32", (size,))))
        return made

    assert infer("ifelse", "bool[]", [side(1, n), side(2, n)]) == "f32[n]"
    with pytest.raises(
        SizeMismatch, match="axis 0 of number 0 of what the second block yields must be n, got m"
    ):
        infer("ifelse", "bool[]", [side(1, n), side(2, m)])
    with pytest.raises(TypeError, match=r"operand c must be bool\[\], got i64\[\]"):
        infer("ifelse", "i64[]", [side(1, n), side(2, n)])


POINT: dict[str, Any] = {"dims": (n, 4)}
FUSED: list[tuple[str, Block, dict[str, Any], str]] = [
    ("f32[n,4] f32[4]", block("f32[] f32[]", "0"), {"maps": ("ab", "b"), "out": ("ab",)}, "f32[n,4]"),
    ("f32[4,n]", block("f32[]", "0 0"), {"maps": ("ba",), "out": ("ab", "ba")}, "f32[n,4] f32[4,n]"),
    ("f32[n,4]", block("f32[]", "0"), {"maps": ("ab",), "out": ("a",), "reduce": ("sum",)}, "f32[n]"),
    ("f32[n,4]", block("f32[]", "0"), {"maps": ("ab",), "out": ("",), "reduce": ("max",)}, "f32[]"),
    (
        "f32[n,4] i64[n]",
        block("f32[4] i64[]", "1 0"),
        {"maps": ("ab", "a"), "out": ("a", "ab"), "row": 1},
        "i64[n] f32[n,4]",
    ),
    (
        "f32[n,4]",
        block("f32[4]", "0"),
        {"maps": ("ab",), "out": ("b",), "reduce": ("sum",), "row": 1},
        "f32[4]",
    ),
    ("f32[n]", block("f32[]", "0"), {"maps": ("a",), "out": ("",), "reduce": ("sum",), "row": 1}, "f32[]"),
]


@pytest.mark.parametrize("operands,body,attrs,result", FUSED, ids=[f"{f[0]} {f[2]['out']}" for f in FUSED])
def test_fuse(operands: str, body: Block, attrs: dict[str, Any], result: str) -> None:
    assert infer("fuse", operands, [body], **POINT, **attrs) == result


NOT_FUSED: list[tuple[str, Block, dict[str, Any], str]] = [
    ("f32[n,4]", block("f32[]", "0"), {"maps": (), "out": ("ab",)}, "a map for each of its 1 operands"),
    (
        "f32[n,4]",
        block("f32[]", "0"),
        {"maps": ("aa",), "out": ("ab",)},
        "the map 'aa' of xs[0] does not fit",
    ),
    (
        "f32[n,4]",
        block("f32[]", "0"),
        {"maps": ("ac",), "out": ("ab",)},
        "the map 'ac' of xs[0] does not fit",
    ),
    ("f32[m,4]", block("f32[]", "0"), {"maps": ("ab",), "out": ("ab",)}, "axis 0 of xs[0] must be n, got m"),
    (
        "f32[n,4]",
        block("f64[]", "0"),
        {"maps": ("ab",), "out": ("ab",)},
        "the block's parameters must be (f32[])",
    ),
    ("f32[n,4]", block("f32[]", "0 0"), {"maps": ("ab",), "out": ("ab",)}, "yields 2 values for 1 results"),
    ("f32[n,4]", block("f32[]", "0"), {"maps": ("ab",), "out": ("a",)}, "cannot have the reduction ''"),
    (
        "f32[n,4]",
        block("f32[]", "0"),
        {"maps": ("ab",), "out": ("ab",), "reduce": ("sum",)},
        "cannot have the reduction 'sum'",
    ),
    (
        "f32[n,4]",
        block("f32[]", "0"),
        {"maps": ("ab",), "out": ("a",), "reduce": ("mean",)},
        "the reduction 'mean'",
    ),
    (
        "f32[n]",
        block("f32[]", "0"),
        {"maps": ("a",), "out": ("ab",), "row": 1},
        "cannot have the reduction ''",
    ),
]


@pytest.mark.parametrize("operands,body,attrs,words", NOT_FUSED, ids=[w for *_, w in NOT_FUSED])
def test_what_fuse_refuses(operands: str, body: Block, attrs: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError) as caught:
        infer("fuse", operands, [body], **POINT, **attrs)
    assert words in str(caught.value)


def test_an_epilogue_sees_finished_elements() -> None:
    body = Block(types("f32[] f32[]"))
    b = Builder(body)
    b.op("yield", b.add(*body.params), b.gt(*body.params))
    attrs: dict[str, Any] = {"maps": ("b",)}
    assert infer("matmul", "f32[n,3] f32[3,5] f32[5]", [body], **attrs) == "f32[n,5] bool[n,5]"
    with pytest.raises(TypeError, match="one block and a map for each further operand"):
        infer("matmul", "f32[n,3] f32[3,5]", [body], **attrs)
    with pytest.raises(TypeError, match="axis 0 of extra"):
        infer("matmul", "f32[n,3] f32[3,5] f32[4]", [body], **attrs)
    with pytest.raises(TypeError, match="the block must yield scalars"):
        rows = Block(types("f32[] f32[]"))
        inner = Builder(rows)
        inner.op("yield", inner.broadcast(rows.params[0], shape=(5,)))
        infer("matmul", "f32[n,3] f32[3,5] f32[5]", [rows], **attrs)


def test_a_loop_names_its_index() -> None:
    assert infer("for", "", [block("")], index=name("i"), length=n) == ""
    with pytest.raises(TypeError, match="the index must be a name, got 2"):
        infer("for", "", [block("")], index=2, length=n)
    with pytest.raises(TypeError, match="takes and yields nothing"):
        infer("for", "", [block("f32[]", "0")], index=name("i"), length=n)


def test_a_python_function_has_the_types_it_declares() -> None:
    declared = types("f64[n] i64[]")
    assert infer("call", "f32[n]", name="np.modf", types=declared) == "f64[n] i64[]"


def test_a_place_keeps_its_layout() -> None:
    assert infer("alloc", "", type=parse_type("&f32[n,4; 1,n] @arena")) == "&f32[n,4; 1,n] @arena"
    assert infer("view", "f32[n,4]", type=parse_type("&f32[n; 4] @arena"), offset=2) == "&f32[n; 4] @arena"
    assert infer("copy", "f32[n,4]") == "f32[n,4]"


# -- attributes ------------------------------------------------------------------------------------------------------


def test_attributes_are_the_rows_own() -> None:
    with pytest.raises(TypeError, match="sum needs the attribute axes"):
        infer("sum", "f32[3]")
    with pytest.raises(TypeError, match=r"exp has no attribute axis \(it has none\)"):
        infer("exp", "f32[3]", axis=0)


def test_sums_of_the_sizes_of_an_expansion_follow_the_operand() -> None:
    """An expansion and a gradient work for sizes that are names, not only for numbers."""
    body = Block(types("f32[n,m] i64[n]"), ["x", "labels"])
    b = Builder(body)
    op = b.op("xent", *body.params)
    assert op.defn.expand is not None and op.defn.grad is not None
    (loss,) = op.defn.expand(b, op)
    gradient, _ = op.defn.grad(b, op, [b.full(1, op.result)])
    b.op("yield", op.result, loss, gradient)
    x, labels = np.zeros((2, 4), np.float32), np.array([1, -1])
    whole, expanded, slope = run(Func("f", body), x, labels)
    np.testing.assert_allclose(whole, np.log([4.0, 4.0]), rtol=1e-6)
    np.testing.assert_array_equal(expanded, whole)
    np.testing.assert_array_equal(slope, [[0.25, -0.75, 0.25, 0.25], [0.25, 0.25, 0.25, -0.75]])
