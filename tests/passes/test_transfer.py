"""Copies between the host and a device, around ops that Python runs."""

from __future__ import annotations

from tcc.ir.core import Func, Op
from tcc.ir.text import parse_func
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline


def transferred(text: str) -> Func:
    func = parse_func(text)
    run(func, gpu_pipeline(), Context())
    return func


def copies(func: Func) -> list[str]:
    """`name -> space` of each copy to or from the host, and the ops of the host between them."""
    found = []
    for op in func.body.walk():
        spaces = [v.type.place.space for v in op.operands if v.type.place is not None]
        if op.name == "copy" and "host" in spaces:
            found.append(" -> ".join("host" if s == "host" else "device" for s in spaces))
        elif spaces and set(spaces) == {"host"}:
            found.append(op.name)
    return found


def test_operands_come_and_results_go() -> None:
    func = transferred(
        """func @f(%x: f64[3,3]) -> (f64[3,3]) {
          %a = matrix_inverse %x : f64[3,3]
          %b = exp %a : f64[3,3]
          yield %b
        }"""
    )
    assert copies(func) == ["device -> host", "matrix_inverse", "host -> device"]


def test_what_the_host_has_is_not_fetched_and_what_nobody_reads_is_not_sent() -> None:
    func = transferred(
        """func @f(%x: f64[3,3]) -> (f64[3,3]) {
          %a = matrix_inverse %x : f64[3,3]
          %b = matrix_inverse %a : f64[3,3]
          yield %b
        }"""
    )
    assert copies(func) == ["device -> host", "matrix_inverse", "matrix_inverse", "host -> device"]


def test_what_a_kernel_has_written_since_is_fetched_again() -> None:
    func = transferred(
        """func @f(%x: f64[3,3], %w: f64[3,3]) -> (f64[3,3], f64[3,3]) {shared = ["w"], updates = {w = 1}} {
          %a = matrix_inverse %w : f64[3,3]
          %b = add %w, %x : f64[3,3]
          %c = matrix_inverse %b : f64[3,3]
          %d = add %a, %c : f64[3,3]
          yield %d, %b
        }"""
    )
    kinds = copies(func)
    assert kinds.count("device -> host") == 2 and kinds.count("host -> device") == 2


def test_loops_have_copies_of_their_own() -> None:
    func = transferred(
        """func @f(%x: f64[3,3]) -> (f64[3,3]) {
          %r = scan %x {seqs = 0, carries = 1, length = 4} (%s: f64[3,3]) {
            %a = matrix_inverse %s : f64[3,3]
            yield %a
          } : f64[3,3]
          yield %r
        }"""
    )
    (loop,) = (op for op in func.body.walk() if op.name == "for")
    inside: list[Op] = list(loop.block.walk())
    assert [op.name for op in inside].count("matrix_inverse") == 1
    assert any(op.name == "copy" and op.operands[0].type.place.space == "host" for op in inside)
