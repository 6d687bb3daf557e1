from __future__ import annotations

from collections.abc import Callable

import pytest

from tcc.ir.core import Block, Func, Op
from tcc.ir.optable import TABLE
from tcc.ir.text import parse_func
from tcc.ir.types import parse_type
from tcc.ir.verify import VerifyError, verify

TEXT = """
func @f(%x: f32[4], %y: f32[4]) -> (f32[4]) {
  %a = add %x, %y : f32[4]
  %b = fuse %a {maps = ["a"], dims = [4], out = ["a"]} (%u: f32[]) {
    %c = tanh %u : f32[]
    yield %c
  } : f32[4]
  %d = mul %a, %b : f32[4] loc "model.py:7"
  yield %d
}
"""


def named(func: Func, name: str) -> Op:
    return next(op for op in func.body.walk() if op.results and op.result.name == name)


def drop_use(func: Func) -> None:
    op = named(func, "d")
    del op.operands[0].uses[op, 0]


def invent_use(func: Func) -> None:
    func.body.params[1].uses[named(func, "d"), 0] = None


def leave_operand_behind(func: Func) -> None:
    named(func, "d").operands[1] = func.body.params[0]


def use_of_a_dropped_op(func: Func) -> None:
    x = func.body.params[0]
    Op(TABLE["tanh"], [x], [x.type])


def use_before_definition(func: Func) -> None:
    func.body.move(named(func, "d"), before=named(func, "a"))


def use_out_of_a_block(func: Func) -> None:
    named(func, "d").set_operand(1, named(func, "c").result)


def change_type(func: Func) -> None:
    named(func, "a").result.type = parse_type("f32[5]")


def change_parent(func: Func) -> None:
    named(func, "a").parent = named(func, "b").block


def cut_list(func: Func) -> None:
    named(func, "b").prev = None


def forget_last(func: Func) -> None:
    func.body.last = named(func, "d")


def share_a_block(func: Func) -> None:
    named(func, "b").blocks[0].parent = named(func, "d")


def forget_owner(func: Func) -> None:
    named(func, "a").result.index = 1


def foreign_body(func: Func) -> None:
    func.body.parent = named(func, "b")


def drop_attribute(func: Func) -> None:
    del named(func, "b").attrs["dims"]


@pytest.mark.parametrize(
    "spoil, words",
    [
        (drop_use, "operand a does not list this use"),
        (invent_use, "%y lists a use by mul that is not there"),
        (leave_operand_behind, "operand b does not list this use"),
        (use_of_a_dropped_op, "%x lists a use by tanh that is not there"),
        (use_before_definition, "operand a is used where it is not defined"),
        (use_out_of_a_block, "operand b is used where it is not defined"),
        (change_type, "the type rule says (f32[4])"),
        (change_parent, "the list of operations is broken at add"),
        (cut_list, "the list of operations is broken at fuse"),
        (forget_last, "the list of operations does not end at its last one"),
        (share_a_block, "the parent of its block is another operation"),
        (forget_owner, "result 0 does not know its place"),
        (foreign_body, "the body's parent is not the function"),
        (drop_attribute, "fuse needs the attribute dims"),
    ],
)
def test_a_broken_graph_is_reported(spoil: Callable[[Func], None], words: str) -> None:
    func = parse_func(TEXT)
    verify(func)
    spoil(func)
    with pytest.raises(VerifyError) as e:
        verify(func)
    assert words in str(e.value)


def test_the_error_shows_the_operation_between_its_neighbours_and_where_it_was_written() -> None:
    func = parse_func(TEXT)
    named(func, "d").result.type = parse_type("f64[4]")
    with pytest.raises(VerifyError) as e:
        verify(func)
    assert str(e.value).splitlines() == [
        "mul in @f: its results are (f64[4]), the type rule says (f32[4])",
        "      yield %c",
        "    } : f32[4]",
        '>   %d = mul %a, %b : f64[4] loc "model.py:7"',
        "    yield %d",
        "  }",
        "written at model.py:7",
    ]


def test_an_empty_block_is_reported() -> None:
    with pytest.raises(VerifyError, match="does not end in yield"):
        verify(Func("f", Block()))
