"""Convolution and its gradients on a GPU, as products whose operands are found by index."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen.gpu.kernel import Divider, GpuKernel
from tcc.codegen.gpu.products import Product
from tcc.codegen.gpu.results import dense_axes
from tcc.codegen.index import plus, times
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size


def conv_kernels(op: Op) -> list[GpuKernel]:
    """A placed `conv`, `conv_input` or `conv_filter`."""
    return CONVOLUTIONS[op.name](op).kernels()


class Geometry(Product):
    """What the convolutions share: groups are the batch, and taps meet places of the image."""

    divides = True

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.space = self.types[0].rank - 2
        self.groups = int(op.attrs["groups"])
        self.batch = self.groups
        self.x, self.w, self.y = self.roles()
        x, w = self.types[self.x], self.types[self.w]
        self.filters, self.channels = dims.floordiv(w.shape[0], self.groups), w.shape[1]
        self.taps, self.pixels = list(w.shape[2:]), list(self.types[self.y].shape[2:])
        self.images, self.places = x.shape[0], list(x.shape[2:])

    def roles(self) -> tuple[int, int, int]:
        """The numbers of the image, the filters and the convolution's result among the operands."""
        raise NotImplementedError

    def more_sizes(self) -> Sequence[Size]:
        return [
            self.filters,
            self.channels,
            *self.op.attrs["pads"][::2],
            *self.op.attrs["strides"],
            *self.op.attrs["dilation"],
        ]

    def enter(self, z: str) -> None:
        self.z = z

    def begin_product(self) -> None:
        super().begin_product()
        sizes = [self.channels, self.filters, *self.taps, *self.pixels, *self.places]
        self.divider = Divider(self.e, {s: self.size(s) for s in sizes})

    def split(self, number: str, shape: Sequence[Size]) -> list[str]:
        """The indices of a number, as `unravel` has them, without long divisions."""
        total, indices = dims.product(list(shape)), list[str]()
        small = isinstance(total, int) and total < 1 << 31
        for s in reversed(shape[1:]):
            number, index = self.divider.split(number, self.size(s), small)
            indices.append(index)
        return [number, *reversed(indices)]

    def in_group(self, number: str, each: Size) -> str:
        return plus(self.e, times(self.e, self.z, self.size(each)), number)

    def result_steps(self) -> list[Size] | None:
        """Of images whose positions lie one after another: a run of as many as divide their number is of one image."""
        t = self.types[self.out]
        positions = dims.product(list(t.shape[2:]))
        return [positions, *t.strides[:2]] if dense_axes(t, range(2, t.rank)) else None

    @property
    def pointwise(self) -> bool:
        """Whether each pixel meets the place of its own number alone."""
        attrs = self.op.attrs
        ones = [*self.taps, *attrs["strides"]]
        return all(s == 1 for s in ones) and all(p == 0 for p in attrs["pads"])

    @property
    def whole_filters(self) -> bool:
        """Whether what a filter has lies dense, channels outside of taps."""
        t = self.types[self.w]
        return dense_axes(t, range(1, t.rank))

    def lie_apart(self, operand: int, count: int) -> bool:
        """Whether runs of `count` positions, which begin at multiples of it, lie dense in one image."""
        t = self.types[operand]
        positions = dims.product(list(t.shape[2:]))
        return dense_axes(t, range(2, t.rank)) and isinstance(positions, int) and positions % count == 0

    def in_images(self, operand: int, count: int) -> bool:
        return self.pointwise and self.lie_apart(operand, count)

    def met(self, pixels: Sequence[str], taps: Sequence[str]) -> tuple[list[str], str]:
        """The place of the image that a tap of a pixel meets, and whether it is inside; 0 if it is not."""
        e, attrs = self.e, self.op.attrs
        found, inside = [], "true"
        for axis, (p, t) in enumerate(zip(pixels, taps)):
            at = plus(
                e,
                times(e, p, self.size(attrs["strides"][axis])),
                times(e, t, self.size(attrs["dilation"][axis])),
            )
            at = e.value(f"sub i64 {at}, {self.size(attrs['pads'][2 * axis])}")
            good = e.value(f"icmp ult i64 {at}, {self.size(self.places[axis])}")
            found.append(e.value(f"select i1 {good}, i64 {at}, i64 0"))
            inside = e.value(f"and i1 {inside}, {good}")
        return found, inside

    def meeting(self, places: Sequence[str], taps: Sequence[str]) -> tuple[list[str], str]:
        """The pixel whose tap meets a place of the image, and whether there is one."""
        e, attrs = self.e, self.op.attrs
        found, inside = [], "true"
        for axis, (s, t) in enumerate(zip(places, taps)):
            step = self.size(attrs["strides"][axis])
            at = e.value(
                f"sub i64 {plus(e, s, self.size(attrs['pads'][2 * axis]))}, {times(e, t, self.size(attrs['dilation'][axis]))}"
            )
            pixel, rest = at, "0"
            if step != "1":
                pixel, rest = e.value(f"sdiv i64 {at}, {step}"), e.value(f"srem i64 {at}, {step}")
            good = e.value(f"icmp sge i64 {at}, 0")
            good = e.value(f"and i1 {good}, {e.value(f'icmp eq i64 {rest}, 0')}")
            good = e.value(
                f"and i1 {good}, {e.value(f'icmp slt i64 {pixel}, {self.size(self.pixels[axis])}')}"
            )
            found.append(e.value(f"select i1 {good}, i64 {pixel}, i64 0"))
            inside = e.value(f"and i1 {inside}, {good}")
        return found, inside


class Conv(Geometry):
    """Filters by pixels of all images; k is channels and taps."""

    def roles(self) -> tuple[int, int, int]:
        return 0, 1, self.out

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.m, self.n = self.filters, dims.product([self.images, *self.pixels])
        self.k = dims.product([self.channels, *self.taps])

    def a_at(self, i: str, k: str) -> tuple[str, str]:
        return self.address(
            1, [self.in_group(i, self.filters), *self.split(k, [self.channels, *self.taps])]
        ), ""

    def b_at(self, k: str, j: str) -> tuple[str, str]:
        channel, *taps = self.split(k, [self.channels, *self.taps])
        image, *pixels = self.split(j, [self.images, *self.pixels])
        where, inside = self.met(pixels, taps)
        return self.address(0, [image, self.in_group(channel, self.channels), *where]), inside

    def place(self, i: str, j: str) -> list[str]:
        image, *pixels = self.split(j, [self.images, *self.pixels])
        return [image, self.in_group(i, self.filters), *pixels]


class ConvInput(Geometry):
    """Channels by places of all images; k is filters and taps."""

    def roles(self) -> tuple[int, int, int]:
        return self.out, 0, 1

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.m, self.n = self.channels, dims.product([self.images, *self.places])
        self.k = dims.product([self.filters, *self.taps])
        self.a_along_k = False

    def a_at(self, i: str, k: str) -> tuple[str, str]:
        number, *taps = self.split(k, [self.filters, *self.taps])
        return self.address(0, [self.in_group(number, self.filters), i, *taps]), ""

    def b_at(self, k: str, j: str) -> tuple[str, str]:
        number, *taps = self.split(k, [self.filters, *self.taps])
        image, *places = self.split(j, [self.images, *self.places])
        where, inside = self.meeting(places, taps)
        return self.address(1, [image, self.in_group(number, self.filters), *where]), inside

    def place(self, i: str, j: str) -> list[str]:
        image, *places = self.split(j, [self.images, *self.places])
        return [image, self.in_group(i, self.channels), *places]


class ConvFilter(Geometry):
    """Filters by channels and taps; k is pixels of all images."""

    def roles(self) -> tuple[int, int, int]:
        return 0, self.out, 1

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.m, self.n = self.filters, dims.product([self.channels, *self.taps])
        self.k = dims.product([self.images, *self.pixels])
        self.b_along_k = True

    def a_at(self, i: str, k: str) -> tuple[str, str]:
        image, *pixels = self.split(k, [self.images, *self.pixels])
        return self.address(1, [image, self.in_group(i, self.filters), *pixels]), ""

    def b_at(self, k: str, j: str) -> tuple[str, str]:
        image, *pixels = self.split(k, [self.images, *self.pixels])
        channel, *taps = self.split(j, [self.channels, *self.taps])
        where, inside = self.met(pixels, taps)
        return self.address(0, [image, self.in_group(channel, self.channels), *where]), inside

    def place(self, i: str, j: str) -> list[str]:
        return [self.in_group(i, self.filters), *self.split(j, [self.channels, *self.taps])]

    def result_steps(self) -> list[Size] | None:
        t = self.types[self.out]
        return [t.strides[0]] if dense_axes(t, range(1, t.rank)) else None


CONVOLUTIONS: dict[str, type[Geometry]] = {"conv": Conv, "conv_input": ConvInput, "conv_filter": ConvFilter}
