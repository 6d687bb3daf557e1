"""Checks that hold between any two passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tcc.ir import dims
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Expr
from tcc.ir.optable import check_arity, complete_attrs
from tcc.ir.printer import window
from tcc.ir.types import Type

LETTERS = "abcdefghijklmnopqrstuvwxyz"  # the axes of an iteration space
CONTROL = frozenset({"for", "ifelse"})  # their blocks hold operations on places, once placed


class VerifyError(Exception):
    """IR that breaks a rule: `message`, the operation `op` (None: the function as a whole), and a window of text."""

    def __init__(self, func: Func, op: Op | None, message: str) -> None:
        super().__init__(message)
        self.func, self.op, self.message = func, op, message
        if op is None:
            self.text = f"@{func.name}: {message}"
        else:
            where = f"\nwritten at {op.loc}" if op.loc else ""
            self.text = f"{op.name} in @{func.name}: {message}\n{window(func, op)}{where}"

    def __str__(self) -> str:
        return self.text


def verify(func: Func) -> None:
    """Types re-inferred, definitions before uses, use lists exact, one `yield` a block, places and sizes known.

    Raises VerifyError for the first operation that is wrong.
    """
    Verifier(func).run()


class Verifier:
    """One walk; `visible` values and size `names` go away again when the block that brought them ends."""

    def __init__(self, func: Func) -> None:
        self.func = func
        self.visible: set[Value] = set()
        self.names: set[str] = set()
        self.ops: set[Op] = set()
        self.defined: list[Value] = []
        self.checked: set[Type] = set()  # types whose sizes are all known; only while nothing leaves `names`
        self.slots = 0  # operands seen
        self.placed = "outputs" in func.attrs or any(p.type.place for p in func.body.params)
        self.writer: Op | None = None  # the first that writes a shared variable
        self.bodies = 0  # kernels' blocks around, whose values are in registers

    def run(self) -> None:
        body = self.func.body
        if body.parent is not self.func:
            raise VerifyError(self.func, None, "the body's parent is not the function")
        for p in body.params:
            self.names |= names_in(p.type)
        self.block(body, None)
        self.attrs()
        self.uses()

    def error(self, op: Op | None, message: str) -> VerifyError:
        return VerifyError(self.func, op, message)

    # -- structure -----------------------------------------------------------------------------------------------

    def block(self, block: Block, owner: Op | None) -> None:
        for i, p in enumerate(block.params):
            if p.owner is not block or p.index != i:
                raise self.error(owner, f"parameter {i} of its block does not know its place")
            if owner is not None:
                self.sizes(owner, p.type)
        self.define(block.params)
        previous: Op | None = None
        op = block.first
        while op is not None:
            if op.parent is not block or op.prev is not previous:
                raise self.error(owner, f"the list of operations is broken at {op.name}")
            if previous is not None and previous.name == "yield":
                raise self.error(previous, "yield stands before the end of its block")
            self.op(op)
            previous, op = op, op.next
        if previous is not block.last:
            raise self.error(owner, "the list of operations does not end at its last one")
        if previous is None or previous.name != "yield":
            raise self.error(previous or owner, "a block does not end in yield")

    def define(self, values: Sequence[Value]) -> None:
        self.visible.update(values)
        self.defined += values

    def op(self, op: Op) -> None:
        if op in self.ops:
            raise self.error(op, "stands in the function twice")
        self.ops.add(op)
        self.slots += len(op.operands)
        for i, v in enumerate(op.operands):
            if v not in self.visible:
                raise self.error(op, f"operand {op.defn.operand_name(i)} is used where it is not defined")
            if (op, i) not in v.uses:
                raise self.error(op, f"operand {op.defn.operand_name(i)} does not list this use")
        for block in op.blocks:
            self.inner(op, block)
        self.types(op)
        for i, r in enumerate(op.results):
            if r.owner is not op or r.index != i:
                raise self.error(op, f"result {i} does not know its place")
        if op.name == "bind":
            self.names.add(str(op.attrs["size"]))
        for value in op.attrs.values():
            self.attr_sizes(op, value)
        for r in op.results:
            self.sizes(op, r.type)
            if self.placed and not self.bodies and r.type.place is None:
                raise self.error(op, "its result has no place, where everything has one")
        self.define(op.results)
        self.failure(op)

    def failure(self, op: Op) -> None:
        """An error must find all shared variables as they were, so what can fail comes before what writes them."""
        if op.defn.fails and self.writer is not None:
            raise self.error(op, f"can fail after {self.writer.name} has written a shared variable")
        if self.writer is None and op.attrs.get("into") and any(written_shared(p) for p in op.places):
            self.writer = op

    def inner(self, op: Op, block: Block) -> None:
        """A block of `op`, with what is visible only inside of it."""
        if block.parent is not op:
            raise self.error(op, "the parent of its block is another operation")
        first, names = len(self.defined), set(self.names)
        before = self.writer
        self.bodies += op.name not in CONTROL
        if "index" in op.attrs:
            self.names.add(str(op.attrs["index"]))
        self.block(block, op)
        self.bodies -= op.name not in CONTROL
        if op.name == "for" and before is None and self.writer is not None:
            failing = next((o for o in block.walk() if o.defn.fails), None)
            if failing is not None:
                raise self.error(failing, f"can fail after {self.writer.name} has written a shared variable")
        self.visible.difference_update(self.defined[first:])
        if names != self.names:
            self.names = names
            self.checked.clear()

    # -- types ---------------------------------------------------------------------------------------------------

    def types(self, op: Op) -> None:
        into = op.attrs.get("into", 0)
        if not isinstance(into, int) or not 0 <= into <= len(op.operands):
            raise self.error(op, f"into = {into}, but there are {len(op.operands)} operands")
        reads = op.reads if into else op.operands
        try:
            check_arity(op.defn, len(reads))
            attrs = complete_attrs(op.defn, op.attrs)
            want = op.defn.infer([v.type.value for v in reads], attrs, op.blocks)
        except TypeError as e:
            raise self.error(op, str(e)) from e
        except Exception as e:  # the rule met an attribute of a kind that it does not know
            raise self.error(op, f"its attributes cannot be read: {type(e).__name__}: {e}") from e
        made = op.places if into else op.results
        if into and op.results:
            raise self.error(op, "has both results and places to put them")
        got = [v.type if w.place else v.type.value for v, w in zip(made, want)]
        if got != want or len(made) != len(want):
            kind = "places" if into else "results"
            raise self.error(
                op, f"its {kind} are {listed(v.type for v in made)}, the type rule says {listed(want)}"
            )
        if into:
            self.places(op)

    def places(self, op: Op) -> None:
        """Results go to memory, and to an operand's own only where the row allows it."""
        for k, place in enumerate(op.places):
            if place.type.place is None:
                raise self.error(op, f"its result {k} goes to {place.type}, which is not a place")
            if place.type.place.space in ("input", "const"):
                raise self.error(op, f"its result {k} goes to {place.type}, which is read-only")
            for i, read in enumerate(op.reads):
                if same_place(read, place) and not may_reuse(op, i, k):
                    name = op.defn.operand_name(i)
                    raise self.error(op, f"its result {k} may not take the memory of operand {name}")
            if any(same_place(place, other) for other in op.places[:k]):
                raise self.error(op, f"two results go to {place!r}")

    # -- sizes ---------------------------------------------------------------------------------------------------

    def sizes(self, op: Op, t: Type) -> None:
        if t in self.checked:
            return
        unknown = names_in(t) - self.names
        if unknown:
            raise self.error(op, f"the size {min(unknown)} of {t} is not defined here")
        self.checked.add(t)

    def attr_sizes(self, op: Op, value: object) -> None:
        if isinstance(value, Type):
            self.sizes(op, value)
        elif isinstance(value, list | tuple):
            for item in value:
                self.attr_sizes(op, item)
        elif isinstance(value, Expr) and not value.names <= self.names and value != op.attrs.get("index"):
            raise self.error(op, f"the size {min(value.names - self.names)} is not defined here")

    # -- the function as a whole ---------------------------------------------------------------------------------

    def attrs(self) -> None:
        params = {p.name for p in self.func.body.params}
        shared, updates = self.func.attrs.get("shared", []), self.func.attrs.get("updates", {})
        if not isinstance(shared, list | tuple) or not isinstance(updates, dict):
            raise self.error(None, "shared is a list of names, updates maps names to results")
        for name in shared:
            if name not in params:
                raise self.error(None, f"the shared variable {name} is not a parameter")
        placed = "outputs" in self.func.attrs  # then updates have been written, and results are places
        count = len(self.func.body.yields)
        for name, result in updates.items():
            if name not in shared:
                raise self.error(None, f"the update of {name}, which is not a shared variable")
            if not placed and result not in range(count):
                raise self.error(None, f"the update of {name} is result {result}, but there are {count}")

    def uses(self) -> None:
        """Every operand was seen to list its use; equal counts say that no value lists another one."""
        if sum(len(v.uses) for v in self.defined) == self.slots:
            return
        for v in self.defined:
            for user, i in v.uses:
                if user not in self.ops or i >= len(user.operands) or user.operands[i] is not v:
                    raise self.error(v.op, f"%{v.name} lists a use by {user.name} that is not there")


def written_shared(place: Value) -> bool:
    return place.type.place is not None and place.type.place.space == "shared"


def may_reuse(op: Op, read: int, result: int) -> bool:
    """Whether result number `result` may overwrite operand number `read` while `op` runs."""
    if op.name == "fuse":
        reduced = any(op.attrs["reduce"][result : result + 1])
        return bool(op.attrs["maps"][read] == op.attrs["out"][result]) and not reduced
    if op.name in ("conv", "conv_input") and read > 1:
        # what the block reads at an element is read just before that of the result is written
        return bool(op.attrs["maps"][read - 2] == LETTERS[: op.operands[read].type.rank])
    return read in op.defn.reuse


def same_place(a: Value, b: Value) -> bool:
    """Whether they are certainly the same memory: one value, or equal views of one."""
    if a is b:
        return True
    x, y = a.op, b.op
    if x is None or y is None or a.type != b.type or x.name != "view" or y.name != "view":
        return False
    return x.attrs == y.attrs and same_place(x.operands[0], y.operands[0])


def names_in(t: Type) -> set[str]:
    """The names of sizes in a type, strides included."""
    found: set[str] = set()
    for size in t.shape:
        if isinstance(size, Expr):
            found |= size.names
    if t.place is not None and t.place.strides is not None:
        for size in t.place.strides:
            found |= dims.names_of(size)
    return found


def listed(types: Iterable[Type]) -> str:
    return "(" + ", ".join(map(str, types)) + ")"
