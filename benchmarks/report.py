"""The table of medians, for the terminal and for docs/performance.md."""

from __future__ import annotations

import statistics

from benchmarks.cases import CASES, TOPICS
from benchmarks.results import COLD, WARM, Results, Row


def quantity(seconds: float | None) -> str:
    """`84 ns`, `7.71 ms`: three digits and a unit."""
    if seconds is None:
        return "-"
    units = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
    unit, scale = next((u for u in units if seconds >= u[1]), units[-1])
    value = seconds / scale
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def cell(row: Row, name: str) -> str:
    """A peer's median; tcc's want of a function is said, a peer's is a dash."""
    if name in row.failures:
        return "failed"
    if name in row.not_yet:
        return "not yet" if name == "tcc" else "-"
    return "agrees" if name in row.agreed and name not in row.seconds else quantity(row.seconds.get(name))


def share(row: Row, name: str | None = "tcc") -> str:
    found = row.share(name) if name else None
    return "" if found is None else f"{100 * found:.0f} % {row.limit}"


def line(row: Row) -> str:
    """One row in one line, with the peers in the order in which they took turns."""
    names = dict.fromkeys((*row.agreed, *row.seconds, *row.failures, *row.not_yet))
    cells = ", ".join(f"{name} {cell(row, name)}" for name in names if cell(row, name) != "-")
    ratio = f"; ratio {row.ratio:.2f} to {row.best_peer}" if row.ratio else ""
    return f"{row.case}, threads {row.threads}: {cells or '-'}{ratio}"


def table(rows: list[Row]) -> str:
    """Medians; `ratio` is the best peer's time over tcc's: above 1, tcc is ahead."""
    peers = list(
        dict.fromkeys(
            name for row in rows for name in (*row.agreed, *row.seconds, *row.failures, *row.not_yet)
        )
    )
    head = ["case", "threads", *peers, "ratio", "to", "limit"]
    lines = [head]
    for row in rows:
        ratio = f"{row.ratio:.2f}" if row.ratio else "-"
        cells = [cell(row, name) for name in peers]
        lines.append([row.case, str(row.threads), *cells, ratio, row.best_peer or "-", share(row)])
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    text.insert(1, "-" * len(text[0]))
    text += summary(rows)
    for row in rows:
        text += [f"{row.case}, {row.threads} threads: {name}: {why}" for name, why in row.failures.items()]
    return "\n".join(text)


def summary(rows: list[Row]) -> list[str]:
    """`2 threads: 3 of 4 cases ahead, ratio 1.21 in the geometric mean`, for each number of threads."""
    found = []
    for threads in dict.fromkeys(row.threads for row in rows):
        ratios = [row.ratio for row in rows if row.threads == threads and row.ratio]
        if len(ratios) > 1:
            ahead, mean = sum(ratio >= 1 for ratio in ratios), statistics.geometric_mean(ratios)
            plural = "s" if threads > 1 else ""
            found.append(
                f"{threads} thread{plural}: {ahead} of {len(ratios)} cases ahead, ratio {mean:.2f} in the geometric mean"
            )
    return found


QUIET = 0.1  # CPUs busy with other programs

HEAD = """# Performance

Medians that `python -m benchmarks` measured; it wrote this page from `benchmarks/results/{name}.json`: {cpu}, {cpus} CPUs,
Python {python}, tcc {version}, {peers}. Times from another machine say little: run it on yours.

{busy}

Every case's results agree with a reference in float64 before anything is timed. The peers then take turns, each in a process of
its own on the same CPUs. *Ratio* is the best peer's time over tcc's: above 1, tcc is ahead. *Limit* is the share of what this
machine reached in the same run: of multiply-adds on registers alone (fma), or of reading and writing as many bytes as the answer
needs (memory). *Not yet* is what tcc cannot do."""


def disturbance(rows: list[Row]) -> str:
    """What other programs did to the figures."""
    others = [row.others for row in rows if row.fastest] or [0.0]
    if max(others) < QUIET:
        return "Nothing else ran on the machine."
    busy = sum(other >= QUIET for other in others)
    return (
        f"**The machine was not quiet**: other programs kept up to {max(others):.1f} CPUs busy, and more than {QUIET} during\n"
        f"{busy} of {len(others)} rows, so times are too long and ratios uncertain."
    )


def page(results: Results, name: str) -> str:
    """docs/performance.md."""
    peers = ", ".join(
        f"{peer} {version}{_where(results, peer)}" for peer, version in results.peers.items() if peer != "tcc"
    )
    text = [
        HEAD.format(
            busy=disturbance(results.rows), name=name, version=results.version, peers=peers, **results.machine
        )
    ]
    order = {case.name: k for k, case in enumerate(CASES)}
    for topic in TOPICS:
        rows = [
            row
            for row in results.rows
            if row.topic == topic and COLD not in row.case and WARM not in row.case
        ]
        if rows:
            rows.sort(key=lambda row: (order.get(row.case, len(order)), row.threads))
            text += ["", f"## {topic.capitalize()}", "", *markdown(rows), *said(summary(rows)), *notes(rows)]
    compiled = [row for row in results.rows if COLD in row.case or WARM in row.case]
    if compiled:
        text += ["", "## Compilation", "", "From the graph to the first result, imports not counted.", ""]
        text += markdown(compiled)
    return "\n".join(text) + "\n"


def _where(results: Results, peer: str) -> str:
    """The topics that a peer was asked in, if these are not all."""
    asked = [row for row in results.rows if peer in (*row.seconds, *row.failures, *row.not_yet)]
    topics = {row.topic for row in asked}
    return "" if topics >= {row.topic for row in results.rows} else f" (of {', '.join(sorted(topics))} alone)"


def markdown(rows: list[Row]) -> list[str]:
    lines = [
        "| case | threads | tcc | best peer | | ratio | limit | peer's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        best = row.best_peer
        ratio = f"{row.ratio:.2f}" if row.ratio else "-"
        cells = [
            row.case,
            row.threads,
            cell(row, "tcc"),
            quantity(row.seconds[best]) if best else "-",
            best or "-",
        ]
        lines.append(f"| {' | '.join(map(str, [*cells, ratio, share(row), share(row, best)]))} |")
    return lines


def notes(rows: list[Row]) -> list[str]:
    """The kernels that take the time of each case, at the fewest threads that it was measured at."""
    first = {row.case: row for row in reversed(rows) if row.kernels}
    found = [
        f"{row.case}: " + "; ".join(f"{kernel.replace('->', 'to')}" for kernel in row.kernels)
        for row in reversed(first.values())
    ]
    return ["", "Where tcc's time goes, on the fewest threads:", *said(found)] if found else []


def said(lines: list[str]) -> list[str]:
    return ["", *(f"- {line}" for line in lines)] if lines else []
