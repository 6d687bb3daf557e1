"""What is known while text is written is not left to run time."""

import pytest

from tcc.codegen.emit import Emit, VecType, constant_mask, constant_prefix, merge, reachable
from tcc.codegen.target import KNOWN
from tcc.codegen.vectors import each_vector

T = VecType("float", 8)
AVX2, AVX512 = KNOWN[:2]


def vectors(count, target):
    """The text of a loop over vectors of `count` elements, and the masks that its body was given."""
    e, masks = Emit(), []

    def body(index, mask, values):
        masks.append(mask)
        return [e.value(f"add i64 {values[0]}, {index}")]

    (result,) = each_vector(e, T, target, count, body, [("i64", "7")])
    return e.text(), masks, result


@pytest.mark.parametrize("target", [AVX2, AVX512])
def test_a_known_number_of_whole_vectors_needs_no_mask(target):
    text, masks, _ = vectors("32", target)
    assert masks == [None] and text.count(" phi i64 [0,") == 1 and "icmp slt <" not in text


def test_a_known_ragged_end_is_straight_text_with_a_constant_mask():
    text, masks, result = vectors("11", AVX2)
    live = ", ".join(["i1 true"] * 3 + ["i1 false"] * 5)
    assert masks == [None, f"<{live}>"] and " phi " not in text and result.startswith("%")


def test_no_elements_leave_the_values_as_they_are():
    assert vectors("0", AVX2) == ("\n", [], "7")


def test_a_ragged_end_is_no_loop():
    text, masks, result = vectors("%n", AVX2)
    assert len(masks) == 2 and text.count("icmp slt i64") == 1
    assert f"{result} = phi i64 [" in text


def test_merged_texts_declare_once_what_they_do_not_define():
    helper = "define internal i64 @h(i64 %x) #0 { ret i64 %x }"
    first = (
        f"declare void @f()\n{helper}\n!0 = !{{}}\ndefine void @g() #0 {{\n  call void @f()\n  ret void\n}}\n"
    )
    second = f"declare void @f()\ndeclare void @g()\n{helper}\n!0 = !{{}}\ndefine internal void @k() #0 {{\n  ret void\n}}"
    body = "define void @g() #0 {\n  call void @f()\n  ret void\n}"
    other = "define internal void @k() #0 {\n  ret void\n}"
    assert merge([first, second]) == "\n".join(["declare void @f()", helper, "!0 = !{}", body, other])


def test_what_the_roots_do_not_call_is_left_out():
    functions = {
        name: f"define internal void @{name}() #0 {{{{\nentry:\n  {{}}\n  ret void\n}}}}\n" for name in "abcd"
    }
    calls = {"a": "call void @b()", "b": "call void @p(ptr @c)", "c": "", "d": "call void @a()"}
    kept = reachable("\n".join(functions[n].format(calls[n]) for n in "abcd"), ["a"])
    assert [n for n in "abcd" if f"void @{n}() #0" in kept] == ["a", "b", "c"]


def test_constant_prefix_counts_lanes_in_front() -> None:
    assert [constant_prefix(constant_mask([i < n for i in range(4)])) for n in range(5)] == [0, 1, 2, 3, 4]
    assert constant_prefix(constant_mask([False, True])) is None and constant_prefix("%m") is None
