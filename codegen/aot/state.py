"""The state's tensors in a library and in a context, and the panels of those that products read as second factors.

A tensor that nothing updates and that products alone read, all of them as the same panels, lies in the library as these; its
own order is made where somebody asks for it.  Panels of any other are made when a context gets its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tcc.codegen.aot.layout import ALIGN, CTX_HEADER
from tcc.codegen.emit import Emit
from tcc.codegen.index import Index
from tcc.ir.types import itemsize
from tcc.runtime.manifest import Tensor
from tcc.runtime.panels import Layout

Array = np.ndarray[Any, Any]
COLUMNS = 11  # of a row of the table of panels
_OWN, _HOME, _SLOT, _SOURCE, _FROM, _K, _N, _ROWS, _COLUMNS, _WIDTH, _ELEMENT = range(COLUMNS)


@dataclass(frozen=True)
class Panels:
    """Panels, `width` columns each, of a tensor of the state."""

    layout: Layout
    dtype: str
    width: int

    @property
    def name(self) -> str:
        return self.layout.name

    @property
    def bytes(self) -> int:
        return -(-self.layout.n // self.width) * self.layout.k * self.width * itemsize(self.dtype)

    def made(self, tensor: Array) -> Array:
        return self.layout.panels(tensor, self.width)


def _padded(bytes: int) -> int:
    return -(-bytes // ALIGN) * ALIGN


@dataclass(frozen=True)
class State:
    """The tensors, the header of their file, their values where they are embedded, the names of those that entries update, and
    the panels that entries read, with the names of the tensors that are read in their own order."""

    tensors: tuple[Tensor, ...]
    header: bytes
    values: Mapping[str, Array] | None
    written: frozenset[str] = frozenset()
    panels: tuple[Panels, ...] = ()
    direct: frozenset[str] = frozenset()

    @property
    def kept(self) -> list[Tensor | Panels]:
        """What a context has places for."""
        return [*self.tensors, *self.panels]

    @cached_property
    def slots(self) -> dict[str, int]:
        """Where in a context the address of each tensor and of its panels stands: of its place there, or, of values that never
        changed, in the library; null of a tensor that is there as panels alone."""
        return {t.name: CTX_HEADER + 8 * i for i, t in enumerate(self.kept)}

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Where each has its place in a context."""
        made, at = {}, CTX_HEADER + _padded(8 * len(self.slots))
        for t in self.kept:
            made[t.name] = at
            at += _padded(t.bytes)
        return made

    @property
    def context_bytes(self) -> int:
        bytes = sum(_padded(t.bytes) for t in self.kept)
        return CTX_HEADER + _padded(8 * len(self.slots)) + bytes

    @property
    def file_bytes(self) -> int:
        return len(self.header) + sum(t.bytes for t in self.tensors)

    def panels_of(self, name: str) -> list[int]:
        return [i for i, p in enumerate(self.panels) if p.layout.source == name]

    @cached_property
    def embedded(self) -> dict[str, Array]:
        """What lies in the library, tensors and panels, in this order."""
        made: dict[str, Array] = {}
        for t in self.tensors if self.values is not None else ():
            assert self.values is not None
            value, found = self.values[t.name], self.panels_of(t.name)
            if len(found) == 1 and t.name not in self.direct and self._whole(self.panels[found[0]], value):
                made[self.panels[found[0]].name] = self.panels[found[0]].made(value)
            else:
                made[t.name] = value
        return made

    def _whole(self, panels: Panels, value: Array) -> bool:
        """Whether the panels hold all of a tensor."""
        made = panels.layout
        return made.k * made.n == value.size and {made.rows, made.columns} in ({1, made.n}, {1, made.k})

    @cached_property
    def homes(self) -> dict[str, int]:
        """Where each that is embedded lies in the library's data."""
        made, at = {}, 0
        for name, value in self.embedded.items():
            made[name] = at
            at += _padded(value.nbytes)
        return made

    @cached_property
    def data(self) -> bytes:
        """The library's."""
        return b"".join(
            np.ascontiguousarray(v).tobytes().ljust(_padded(v.nbytes), b"\0") for v in self.embedded.values()
        )

    def table(self) -> str:
        """Of each tensor: its bytes, its place in a context, that in a file's data, that in the library's or -1, whether it is
        updated, and the number of its first panels from 1 on, or 0."""
        rows = []
        for t in self.tensors:
            first = [1 + i for i in self.panels_of(t.name)][:1] or [0]
            numbers = [t.bytes, self.offsets[t.name], t.offset, self.homes.get(t.name, -1)]
            rows.append([*numbers, int(t.name in self.written), *first])
        return _table("tcc_state_places", rows, 6)

    def panels_text(self) -> str:
        """`tcc_panels(ctx)`: makes panels of the tensors that a context has in their own order; `tcc_unpanel(ctx, number, to)`
        makes that order of panels, `tcc_panels_begin(ctx)` finds those that lie in the library."""
        if not self.panels:
            return ""
        rows = []
        for p in self.panels:
            made, element = p.layout, itemsize(p.dtype)
            places = [
                self.offsets[p.name],
                self.homes.get(p.name, -1),
                self.slots[p.name],
                self.slots[made.source],
            ]
            steps = [made.offset * element, made.k, made.n, made.rows * element, made.columns * element]
            rows.append([*places, *steps, p.width, element])
        e = Emit()
        elements = sorted({itemsize(p.dtype) for p in self.panels})
        for element in elements:
            _move(e, element)
        move = f"@tcc_move_{elements[0]}"

        def moved(row: str, matrix: str, panels: str, back: str) -> None:
            function = move
            if len(elements) > 1:
                wide = e.value(f"icmp ne i64 {_field(e, row, _ELEMENT)}, {elements[0]}")
                function = e.value(f"select i1 {wide}, ptr @tcc_move_{elements[1]}, ptr {move}")
            e.line(f"call void {function}(ptr {row}, ptr {matrix}, ptr {panels}, i1 {back})")

        def each(body: Any) -> None:
            e.loop(0, len(rows), 1, lambda i, _: body(e.gep("@tcc_panel_places", i, f"[{COLUMNS} x i64]")))
            e.end()

        def slot(row: str, column: int) -> str:
            return e.gep("%ctx", _field(e, row, column))

        def begin(row: str) -> None:
            home = _field(e, row, _HOME)
            none, there = e.value(f"icmp slt i64 {home}, 0"), e.gep("@tcc_weights", home)
            e.line(f"store ptr {e.value(f'select i1 {none}, ptr null, ptr {there}')}, ptr {slot(row, _SLOT)}")

        def made_again(row: str) -> None:
            source = e.value(f"load ptr, ptr {slot(row, _SOURCE)}")

            def make() -> None:
                own = e.gep("%ctx", _field(e, row, _OWN))
                moved(row, source, own, "false")
                e.line(f"store ptr {own}, ptr {slot(row, _SLOT)}")

            e.when(e.value(f"icmp ne ptr {source}, null"), make)

        e.function("internal void @tcc_panels_begin(ptr %ctx)")
        each(begin)
        e.function("internal void @tcc_panels(ptr %ctx)")
        each(made_again)
        e.function("internal void @tcc_unpanel(ptr %ctx, i64 %number, ptr %to)")
        row = e.gep("@tcc_panel_places", e.value("sub i64 %number, 1"), f"[{COLUMNS} x i64]")
        moved(row, "%to", e.value(f"load ptr, ptr {slot(row, _SLOT)}"), "true")
        e.end()
        return _table("tcc_panel_places", rows, COLUMNS) + e.text()


def _table(name: str, rows: list[list[int]], columns: int) -> str:
    kind = f"[{columns} x i64]"
    text = ", ".join(f"{kind} [{', '.join(f'i64 {n}' for n in row)}]" for row in rows)
    value = f"[{len(rows)} x {kind}] [{text}]" if rows else f"[1 x {kind}] zeroinitializer"
    return f"@{name} = internal constant {value}, align 8\n"


def _field(e: Emit, row: str, column: int) -> str:
    return e.value(f"load i64, ptr {e.gep(row, column, 'i64')}")


def _move(e: Emit, element: int) -> None:
    """`move(row, matrix, panels, back)`: panels of a matrix, with zeros behind its last column, or `back`."""
    e.function(f"internal void @tcc_move_{element}(ptr %row, ptr %matrix, ptr %panels, i1 %back)")
    x, kind = Index(e), f"i{8 * element}"
    k, n, rows, columns, width = (_field(e, "%row", c) for c in (_K, _N, _ROWS, _COLUMNS, _WIDTH))
    first = e.gep("%matrix", _field(e, "%row", _FROM))

    def panel(j: str, v: list[str]) -> list[str]:
        start = e.gep(first, x.mul(j, columns))

        def line(p: str, w: list[str]) -> list[str]:
            here = e.gep(start, x.mul(p, rows))

            def one(i: str, u: list[str]) -> list[str]:
                at = e.gep(here, x.mul(i, columns))
                there = e.value(f"icmp ult i64 {x.add(j, i)}, {n}")
                behind = e.value(f"xor i1 {there}, true")

                def copy() -> None:
                    source, to = (
                        e.value(f"select i1 %back, ptr {a}, ptr {b}") for a, b in ((u[0], at), (at, u[0]))
                    )
                    e.line(
                        f"store {kind} {e.value(f'load {kind}, ptr {source}, align {element}')}, ptr {to}, align {element}"
                    )

                e.when(there, copy)
                e.when(
                    behind,
                    lambda: e.when("%ahead", lambda: e.line(f"store {kind} 0, ptr {u[0]}, align {element}")),
                )
                return [e.gep(u[0], element)]

            return e.loop(0, width, 1, one, [("ptr", w[0])])

        return e.loop(0, k, 1, line, [("ptr", v[0])])

    e.line("%ahead = xor i1 %back, true")
    e.loop(0, n, width, panel, [("ptr", "%panels")])
    e.end()
