"""LLVM text of what entries do with shared variables' containers, which support.py compiles once for all functions.

A function says what it wants of its containers in a table of i64: for each, in the order of its record's, whether it writes
it, its rank, and its sizes, ANY for those that the entry looks at itself.  So an entry is no longer for many containers than for one.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen.slots import field
from tcc.runtime import layout as at
from tcc.runtime.panels import PATIENCE
from tcc.runtime.signature import SharedSpec

ANY = -1


def table(specs: Sequence[SharedSpec]) -> list[int]:
    """The words for these containers."""
    words: list[int] = []
    for spec in specs:
        words += [int(spec.written), len(spec.shape)]
        words += [size if isinstance(size, int) else ANY for size in spec.shape]
    return words


def containers_text() -> str:
    """`tcc_shared_ready`, `tcc_shared_lock`, `tcc_shared_unlock` and `tcc_kept`, to be called with the GIL held."""
    return "".join((_ready_text(), _lock_text(), _unlock_text(), _kept_text()))


def _head(last: str, next_row: str, phis: Sequence[str] = ()) -> str:
    """Of a loop over the records of a table, up to what it does with each, until `%out`: `%record`, its `%lock`, whether the
    function `%writes` it, and its `%rank`.  The block `last` goes on at `%record.next` and `next_row`; more `phis` come along."""
    more = "".join(f"  {phi}\n" for phi in phis)
    return f"""\
entry:
  br label %each
each:
  %record.at = phi ptr [%records, %entry], [%record.next, %{last}]
  %row = phi ptr [%table, %entry], [{next_row}, %{last}]
{more}  %done = icmp eq ptr %row, %end
  br i1 %done, label %out, label %look
look:
  %record = load ptr, ptr %record.at
  %written = load i64, ptr %row
  %writes = icmp ne i64 %written, 0
{field("rank", "%row", 1)}
{field("lock", "%record", at.SHARED_LOCK)}"""


def _ready_text() -> str:
    """`tcc_shared_ready(records, table, end, data)`: whether no container is in use in a way that excludes the function's, and all
    have the sizes of the table; their addresses go to `data`."""
    return f"""
define i1 @tcc_shared_ready(ptr %records, ptr %table, ptr %end, ptr %data) #0 {{
{_head("fits", "%size.at", ["%place = phi ptr [%data, %entry], [%place.next, %fits]"])}
{field("address", "%record", at.SHARED_DATA, "ptr")}
{field("claims", "%record", at.SHARED_CLAIMS)}
  store ptr %address, ptr %place
  %users = select i1 %writes, i64 -1, i64 {-(1 << 63)}
  %using = and i64 %lock, %users
  %claimants = select i1 %writes, i64 {(1 << 32) - 1}, i64 -1
  %claiming = and i64 %claims, %claimants
  %in.use = or i64 %using, %claiming
  %free = icmp eq i64 %in.use, 0
  %size.first = getelementptr i64, ptr %row, i64 2
  %got.first = getelementptr i64, ptr %record, i64 {at.SHARED_DIMS}
  br i1 %free, label %axes, label %no
axes:
  %size.at = phi ptr [%size.first, %look], [%size.next, %same]
  %got.at = phi ptr [%got.first, %look], [%got.next, %same]
  %left = phi i64 [%rank, %look], [%fewer, %same]
  %all = icmp eq i64 %left, 0
  br i1 %all, label %fits, label %axis
axis:
  %size = load i64, ptr %size.at
  %got = load i64, ptr %got.at
  %any = icmp eq i64 %size, {ANY}
  %equal = icmp eq i64 %size, %got
  %well = or i1 %any, %equal
  br i1 %well, label %same, label %no
same:
  %size.next = getelementptr i64, ptr %size.at, i64 1
  %got.next = getelementptr i64, ptr %got.at, i64 1
  %fewer = sub i64 %left, 1
  br label %axes
fits:
  %record.next = getelementptr ptr, ptr %record.at, i64 1
  %place.next = getelementptr ptr, ptr %place, i64 1
  br label %each
out:
  ret i1 true
no:
  ret i1 false
}}
"""


def _lock_text() -> str:
    return _each_text(
        "tcc_shared_lock",
        """\
  %more = add i64 %lock, 1
  %held = select i1 %writes, i64 -1, i64 %more
  store i64 %held, ptr %lock.at""",
    )


def _unlock_text() -> str:
    """What was written is of another version from then on."""
    return _each_text(
        "tcc_shared_unlock",
        f"""\
  %fewer = sub i64 %lock, 1
  %held = select i1 %writes, i64 0, i64 %fewer
  store i64 %held, ptr %lock.at
{field("version", "%record", at.SHARED_VERSION)}
  %later = add i64 %version, %written
  store i64 %later, ptr %version.at""",
    )


def _each_text(name: str, act: str) -> str:
    """A function that does `act` to each record of a table: `%lock` is its lock, `%writes` whether the function writes it."""
    return f"""
define void @{name}(ptr %records, ptr %table, ptr %end) #0 {{
{_head("look", "%row.next")}
{act}
  %sizes = getelementptr i64, ptr %row, i64 2
  %row.next = getelementptr i64, ptr %sizes, i64 %rank
  %record.next = getelementptr ptr, ptr %record.at, i64 1
  br label %each
out:
  ret void
}}
"""


def _kept_text() -> str:
    """`tcc_kept(records, sources, count, kept, data)`: leaves for each of `kept`, the records of panels, where they are in `data`,
    null if they are not of the value of their container, which is the record of that number in `sources`; false when
    some are to be made."""
    return f"""
define i1 @tcc_kept(ptr %records, ptr %sources, i64 %count, ptr %kept, ptr %data) #0 {{
entry:
  br label %each
each:
  %index = phi i64 [0, %entry], [%next, %found]
  %done = icmp eq i64 %index, %count
  br i1 %done, label %yes, label %look
look:
  %source.at = getelementptr i64, ptr %sources, i64 %index
  %source = load i64, ptr %source.at
  %container.at = getelementptr ptr, ptr %records, i64 %source
  %container = load ptr, ptr %container.at
  %panels.at = getelementptr ptr, ptr %kept, i64 %index
  %panels = load ptr, ptr %panels.at
{field("now", "%container", at.SHARED_VERSION)}
{field("version", "%panels", at.PANELS_VERSION)}
{field("address", "%panels", at.PANELS_DATA, "ptr")}
  %fresh = icmp eq i64 %version, %now
  br i1 %fresh, label %found, label %stale
stale:
{field("seen", "%panels", at.PANELS_SEEN)}
{field("calls", "%panels", at.PANELS_CALLS)}
  %same = icmp eq i64 %seen, %now
  %some = icmp sgt i64 %calls, 0
  %less = zext i1 %some to i64
  %fewer = sub i64 %calls, %less
  %left = select i1 %same, i64 %fewer, i64 {PATIENCE}
  store i64 %now, ptr %seen.at
  store i64 %left, ptr %calls.at
  %due = icmp eq i64 %left, 0
  br i1 %due, label %no, label %found
found:
  %there = phi ptr [%address, %look], [null, %stale]
  %place = getelementptr ptr, ptr %data, i64 %index
  store ptr %there, ptr %place
  %next = add i64 %index, 1
  br label %each
yes:
  ret i1 true
no:
  ret i1 false
}}
"""
