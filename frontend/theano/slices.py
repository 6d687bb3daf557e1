"""Theano's canonical slices: `tensor.subtensor.get_canonical_form_slice`."""

from __future__ import annotations

from typing import Any

from tcc.elemwise import clip, ge, lt, maximum, switch
from tcc.variable import TensorConstant, as_variable


def get_canonical_form_slice(theslice: Any, length: Any) -> tuple[Any, Any]:
    """(s, direction): x[theslice] of an x with `length` elements is x[s][::direction], with 0 <= s.start <= s.stop <= length
    and s.step > 0.  An index becomes one that is not negative.

    Numbers give numbers where all are known, variables otherwise.  ValueError for a step of 0.
    """
    if not isinstance(theslice, slice):
        known, many = _number(theslice), _number(length)
        if known is not None and known >= 0:
            return known, 1
        if known is not None and many is not None:
            return known + many, 1
        index = as_variable(theslice)
        return switch(lt(index, 0), index + length, index), 1
    given = [_number(part) for part in (theslice.start, theslice.stop, theslice.step, length)]
    start, stop, step, many = given
    if step == 0:
        raise ValueError("slice step cannot be zero")
    parts = (theslice.start, theslice.stop, theslice.step, length)
    if many is not None and all(part is None or number is not None for part, number in zip(parts, given)):
        first, last, by = slice(start, stop, step).indices(many)
        count = len(range(first, last, by))
        if by > 0:
            return slice(first, max(first, last), by), 1
        return slice(first + (count - 1) * by, first + 1, -by) if count else slice(0, 0, -by), -1
    return _of_variables(theslice, length, step)


def _of_variables(theslice: slice, length: Any, known_step: int | None) -> tuple[Any, Any]:
    size = as_variable(length).astype("int64")
    step = as_variable(1 if theslice.step is None else theslice.step).astype("int64")
    forward = ge(step, 0)

    def bound(part: Any, default: Any) -> Any:
        if part is None:
            return default
        v = as_variable(part).astype("int64")
        v = switch(lt(v, 0), v + size, v)
        return switch(forward, clip(v, 0, size), clip(v, -1, size - 1))

    start = bound(theslice.start, switch(forward, 0, size - 1))
    stop = bound(theslice.stop, switch(forward, size, -1))
    width = abs(step)
    count = maximum((start - stop + width - 1) // width, 0)  # of steps backwards
    lowest = switch(count > 0, start - (count - 1) * width, 0)
    above = switch(count > 0, start + 1, 0)
    if theslice.step is None or known_step is not None and known_step > 0:
        return slice(start, maximum(start, stop), step), 1
    if known_step is not None:
        return slice(lowest, above, width), -1
    first = switch(forward, start, lowest)
    last = switch(forward, maximum(start, stop), above)
    return slice(first, last, width), switch(forward, 1, -1)


def _number(part: Any) -> int | None:
    """The integer that a part of a slice certainly is."""
    if isinstance(part, TensorConstant) and part.data.size == 1:
        return int(part.data)
    try:
        return part.__index__() if hasattr(type(part), "__index__") else None
    except TypeError:
        return None
