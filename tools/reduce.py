"""Makes a failing program smaller while it still fails (delta debugging by single steps, largest first)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from tcc.ir import dims
from tcc.ir.clone import clone
from tcc.ir.core import Func, Op
from tcc.ir.verify import VerifyError, verify
from tcc.passes.dce import dce
from tcc.passes.manager import Context
from tcc.passes.sizes import op_names

Case = tuple[Func, dict[str, int]]
Fails = Callable[[Func, Mapping[str, int]], bool]
Change = Callable[[Func], bool]  # in place; whether it could be made
TRIALS = 400


def reduced(func: Func, sizes: Mapping[str, int], fails: Fails) -> Case:
    """The smallest case found that still fails, after at most TRIALS attempts."""
    best: Case = (func, dict(sizes))
    left = TRIALS
    progress = True
    while progress:
        progress = False
        for smaller in candidates(*best):
            left -= 1
            if left < 0:
                return best
            if valid(smaller[0]) and fails(*smaller):
                best, progress = smaller, True
                break
    return best


def valid(func: Func) -> bool:
    try:
        verify(func)
    except (VerifyError, TypeError, AssertionError):
        return False
    return True


def candidates(func: Func, sizes: Mapping[str, int]) -> Iterator[Case]:
    for change in changes(func):
        new = clone(func, {})
        if change(new):
            dce(new, Context())
            drop_params(new)
            yield new, dict(sizes)
    for name, value in sizes.items():
        for smaller in (1, 2, 3, 5, 16, 17):
            if smaller < value:
                yield clone(func, {}), {**sizes, name: smaller}


def changes(func: Func) -> Iterator[Change]:
    count = len(func.body.yields)
    for i in range(count if count > 1 else 0):
        yield partial(keep_only, kept=[i])
    for i in range(count if count > 1 else 0):
        yield partial(keep_only, kept=[k for k in range(count) if k != i])
    if func.attrs.get("shared"):
        yield forget_shared
    for name in list(func.attrs.get("updates", {})):
        yield partial(forget_update, name=name)
    ops = list(func.body.walk())
    for k in reversed(range(len(ops))):
        yield partial(cut, k=k)
    for k in reversed(range(len(ops))):
        for i in range(len(ops[k].operands)):
            yield partial(bypass, k=k, i=i)
    for k in range(len(ops)):
        yield partial(drop_effect, k=k)


def forget_shared(func: Func) -> bool:
    for key in ("shared", "updates"):
        func.attrs.pop(key, None)
    return True


def forget_update(func: Func, name: str) -> bool:
    func.attrs["updates"] = {n: i for n, i in func.attrs["updates"].items() if n != name}
    return True


def keep_only(func: Func, kept: list[int]) -> bool:
    """Of the results those at `kept`."""
    end = func.body.last
    assert end is not None
    if "updates" in func.attrs:
        func.attrs["updates"] = {n: kept.index(i) for n, i in func.attrs["updates"].items() if i in kept}
    end.set_operands([end.operands[i] for i in kept])
    return True


def nth(func: Func, k: int) -> Op:
    return list(func.body.walk())[k]


def cut(func: Func, k: int) -> bool:
    """Puts parameters in the place of operation k's results; inside a block, only if their sizes are the function's."""
    op = nth(func, k)
    entry = {s.plain for p in func.body.params for s in p.type.shape if not isinstance(s, int)}
    if not op.results or op.name in ("const", "iota", "size"):
        return False
    if any(not dims.names_of(s) <= entry for r in op.results for s in r.type.shape):
        return False
    for r in op.results:
        if r.uses:
            r.replace_by(func.body.add_param(r.type, fresh(func)))
    return True


def fresh(func: Func) -> str:
    used = {p.name for p in func.body.params}
    return next(f"c{i}" for i in range(len(used) + 1) if f"c{i}" not in used)


def bypass(func: Func, k: int, i: int) -> bool:
    """Puts operand i in the place of operation k's result."""
    op = nth(func, k)
    if len(op.results) != 1 or i >= len(op.operands) or op.operands[i].type != op.result.type:
        return False
    op.result.replace_by(op.operands[i])
    return True


def drop_effect(func: Func, k: int) -> bool:
    op = nth(func, k)
    if op.results or op.name in ("yield", "bind"):
        return False
    op.erase()
    return True


def drop_params(func: Func) -> None:
    """Without those that nothing reads and no size needs."""
    for p in reversed(list(func.body.params)):
        if p.uses or p.name in func.attrs.get("updates", {}):
            continue
        needed = {n for op in func.body.walk() for n in op_names(op)} | {
            n for q in func.body.params if q is not p for s in q.type.shape for n in dims.names_of(s)
        }
        given = {
            s.plain for q in func.body.params if q is not p for s in q.type.shape if not isinstance(s, int)
        }
        mine = {n for s in p.type.shape for n in dims.names_of(s)}
        if mine & needed <= given:
            func.body.remove_param(p.index)
            if p.name in func.attrs.get("shared", ()):
                func.attrs["shared"] = [n for n in func.attrs["shared"] if n != p.name]
