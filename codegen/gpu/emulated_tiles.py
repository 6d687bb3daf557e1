"""Tile copies of sm_90 on the host: LLVM text that a kernel's module gets for the emulator where it uses them.

A copy is done when it is called.  Where it is told of what does not exist, or comes before products are done with what it takes the place
of, the tile is NaN (bytes: -1).
"""

from __future__ import annotations

from tcc.codegen.emit import Emit
from tcc.codegen.gpu.ops import THREADS


def in_shared(e: Emit, offset: str) -> str:
    """The address of a byte of shared memory under the 128-byte swizzle: bits 4 to 6 are turned by bits 7 to 9."""
    row = e.value(f"and i64 {e.value(f'lshr i64 {offset}, 7')}, 7")
    at = e.value(f"xor i64 {offset}, {e.value(f'shl i64 {row}, 4')}")
    return e.value(f"getelementptr i8, ptr @emu.shared, i64 {at}")


class _Copy:
    """`i64 @emu.NAME(target, map, coordinates...)`: the bytes of a box, zero where the tensor ends."""

    def __init__(self, name: str, coordinates: str, words: int) -> None:
        e = self.e = Emit()
        given = ", ".join(f"i32 %{c}" for c in coordinates)
        e.function(f"internal i64 @emu.{name}(ptr %target, ptr %map, {given})")
        self.words = [e.value(f"load i64, ptr {e.gep('%map', i, 'i64')}") for i in range(words)]
        self.places = [e.value(f"sext i32 %{c} to i64") for c in coordinates]
        first = e.value("ptrtoint ptr %target to i64")
        self.target = e.value(f"sub i64 {first}, {e.value('ptrtoint ptr @emu.shared to i64')}")

    def begin(self, line: str, lines: str, each: str) -> None:
        """So many lines of so many elements, of some bytes."""
        e = self.e
        self.line, self.each = line, each
        self.bytes = e.value(f"mul i64 {e.value(f'mul i64 {line}, {lines}')}, {each}")
        self.wrong = _read_now(e, self.target, self.bytes)

    def inside(self, *pairs: tuple[str, str]) -> str:
        """Whether places are within sizes; below 0 is far above."""
        holds = "true"
        for place, size in pairs:
            holds = self.e.value(f"and i1 {holds}, {self.e.value(f'icmp ult i64 {place}, {size}')}")
        return holds

    def put_line(self, number: str, there: str, address: str, start: str, size: str) -> None:
        """The elements from `start` on, of `size`, of a line that begins at an address, if it is there."""
        e, each = self.e, self.each
        last = e.value(f"sub i64 {each}, 1")

        def one(i: str, _: list[str]) -> None:
            place = e.value(f"add i64 {start}, {i}")
            exists = e.value(f"and i1 {there}, {self.inside((place, size))}")
            element = e.value(f"add i64 {e.value(f'mul i64 {number}, {self.line}')}, {i}")
            first = e.value(f"add i64 {self.target}, {e.value(f'mul i64 {element}, {each}')}")
            at = e.value(f"add i64 {address}, {e.value(f'mul i64 {place}, {each}')}")
            copied, empty, after = e.label(), e.label(), e.label()
            e.branch_if(exists, copied, empty)
            e.at(copied)
            source = e.value(f"inttoptr i64 {at} to ptr")
            good = e.value(f"call ptr @emu.check(ptr {source}, i64 {each}, i64 {last})")
            e.loop(0, each, 1, lambda b, _: self.put(first, b, e.value(f"load i8, ptr {e.gep(good, b)}")))
            e.branch(after)
            e.at(empty)
            e.loop(0, each, 1, lambda b, _: self.put(first, b, "0"))
            e.branch(after)
            e.at(after)

        e.loop(0, self.line, 1, one)

    def put(self, first: str, byte: str, value: str) -> None:
        e = self.e
        place = in_shared(e, e.value(f"add i64 {first}, {byte}"))
        e.line(f"store i8 {e.value(f'select i1 {self.wrong}, i8 -1, i8 {value}')}, ptr {place}")

    def text(self) -> str:
        self.e.end(f"i64 {self.bytes}")
        return self.e.text()


def tile_copy_text() -> str:
    """Of three axes: a map's words are its address, three sizes, the strides of the outer two in bytes, two sizes of its box, and an
    element's bytes."""
    c = _Copy("tile_copy", "xyz", 9)
    e, (x, y, z) = c.e, c.places
    base, size_x, size_y, size_z, stride_y, stride_z, box_x, box_y, each = c.words
    c.begin(box_x, box_y, each)
    plane = e.value(f"add i64 {base}, {e.value(f'mul i64 {z}, {stride_z}')}")

    def row(j: str, _: list[str]) -> None:
        at = e.value(f"add i64 {y}, {j}")
        line = e.value(f"add i64 {plane}, {e.value(f'mul i64 {at}, {stride_y}')}")
        c.put_line(j, c.inside((at, size_y), (z, size_z)), line, x, size_x)

    e.loop(0, box_y, 1, row)
    return c.text()


MOST_OFFSET = 255  # of a tap from the first, in a map of four axes


def pixel_copy_text() -> str:
    """Of images, from a pixel's first tap on, for the tap that lies so far from it.

    A map's words are its address, four sizes, the strides of the outer three in bytes, a walk's lower and upper corners and steps, the
    channels of its box with the pixels in the upper half, and an element's bytes.
    """
    c = _Copy("pixel_copy", "cwhnxy", 16)
    e, (channel, *start, right, down) = c.e, c.places
    base, channels, width, height, images, *strides = c.words[:8]
    lower, upper, steps, (box, each) = (c.words[n : n + 2] for n in (8, 10, 12, 14))
    pixels = e.value(f"lshr i64 {box}, 32")
    c.begin(e.value(f"and i64 {box}, {(1 << 32) - 1}"), pixels, each)
    ends = [e.value(f"add i64 {size}, {more}") for size, more in zip((width, height), upper)]
    for place, low, end in zip(start, lower, ends):  # the first tap of the first pixel is within
        outside = e.value(
            f"or i1 {e.value(f'icmp slt i64 {place}, {low}')}, {e.value(f'icmp sge i64 {place}, {end}')}"
        )
        c.wrong = e.value(f"or i1 {c.wrong}, {outside}")
    for offset in (right, down):
        c.wrong = e.value(f"or i1 {c.wrong}, {e.value(f'icmp ugt i64 {offset}, {MOST_OFFSET}')}")

    def pixel(number: str, at: list[str]) -> list[str]:
        w, h, n = at
        places = e.value(f"add i64 {w}, {right}"), e.value(f"add i64 {h}, {down}"), n
        line = base
        for place, stride in zip(places, strides):
            line = e.value(f"add i64 {line}, {e.value(f'mul i64 {place}, {stride}')}")
        c.put_line(number, c.inside(*zip(places, (width, height, images))), line, channel, channels)
        return following(w, h, n)

    def following(w: str, h: str, n: str) -> list[str]:
        w, h = (e.value(f"add i64 {place}, {step}") for place, step in zip((w, h), steps))
        row_over = e.value(f"icmp sge i64 {w}, {ends[0]}")
        image_over = e.value(f"and i1 {row_over}, {e.value(f'icmp sge i64 {h}, {ends[1]}')}")
        old = e.value(f"sub i64 {h}, {steps[1]}")
        h = e.value(f"select i1 {row_over}, i64 {h}, i64 {old}")
        return [
            e.value(f"select i1 {row_over}, i64 {lower[0]}, i64 {w}"),
            e.value(f"select i1 {image_over}, i64 {lower[1]}, i64 {h}"),
            e.value(f"add i64 {n}, {e.value(f'zext i1 {image_over} to i64')}"),
        ]

    e.loop(0, pixels, 1, pixel, [("i64", place) for place in start])
    return c.text()


def _read_now(e: Emit, start: str, bytes: str) -> str:
    """Whether products that are under way read some of shared memory."""
    found = e.value("alloca i1")
    e.line(f"store i1 false, ptr {found}")
    end = e.value(f"add i64 {start}, {bytes}")

    def thread(t: str, _: list[str]) -> None:
        count = e.value(f"load i64, ptr {e.value(f'call ptr @emu.group_word(i64 {t}, i64 0)')}")

        def group(g: str, _: list[str]) -> None:
            at = e.value(f"mul i64 {g}, 3")
            words = []
            for w in (1, 2, 3):
                place = e.value(f"call ptr @emu.group_word(i64 {t}, i64 {e.value(f'add i64 {at}, {w}')})")
                words.append(e.value(f"load i64, ptr {place}"))
            for first, size in ((words[0], "8192"), (words[1], words[2])):
                below = e.value(f"icmp ult i64 {first}, {end}")
                above = e.value(f"icmp ugt i64 {e.value(f'add i64 {first}, {size}')}, {start}")
                e.when(e.value(f"and i1 {below}, {above}"), lambda: e.line(f"store i1 true, ptr {found}"))

        e.loop(0, count, 1, group)

    e.loop(0, THREADS, 1, thread)
    return e.value(f"load i1, ptr {found}")
