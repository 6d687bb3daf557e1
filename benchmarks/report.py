"""The table of medians."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(eq=False)
class Row:
    """One case at one number of threads: median seconds of each peer, or why there are none."""

    case: str
    threads: int
    flops: float = 0
    bytes: float = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def best_peer(self) -> str | None:
        others = {name: s for name, s in self.seconds.items() if name != "tcc"}
        return min(others, key=others.__getitem__, default=None)

    def share(self, fma_peak: float, bandwidth: float) -> str:
        """What tcc's median says of the machine's peak: `67 % fma`, `40 % mem`."""
        seconds = self.seconds.get("tcc")
        if not seconds or not (self.flops or self.bytes):
            return ""
        if self.flops:
            return f"{100 * self.flops / seconds / fma_peak:.0f} % fma"
        return f"{100 * self.bytes / seconds / bandwidth:.0f} % mem"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def quantity(seconds: float | None) -> str:
    """`84 ns`, `7.71 ms`: three digits and a unit."""
    if seconds is None:
        return "-"
    units = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
    unit, scale = next((u for u in units if seconds >= u[1]), units[-1])
    return f"{seconds / scale:.3g} {unit}"


def table(rows: list[Row], fma_peaks: dict[int, float], bandwidth: float) -> str:
    """Medians; `ratio` is the best peer's time over tcc's: above 1, tcc is ahead."""
    peers = list(dict.fromkeys(name for row in rows for name in (*row.seconds, *row.failures)))
    head = ["case", "threads", *peers, "ratio", "to", "peak"]
    lines = [head]
    for row in rows:
        best, own = row.best_peer, row.seconds.get("tcc")
        ratio = f"{row.seconds[best] / own:.2f}" if best and own else "-"
        cells = ["failed" if name in row.failures else quantity(row.seconds.get(name)) for name in peers]
        share = row.share(fma_peaks.get(row.threads, float("inf")), bandwidth)
        lines.append([row.case, str(row.threads), *cells, ratio, best or "-", share])
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    text.insert(1, "-" * len(text[0]))
    for row in rows:
        text += [f"{row.case}, {row.threads} threads: {name}: {why}" for name, why in row.failures.items()]
    measured = ", ".join(
        f"{peak / 1e9:.0f} GFLOP/s on {threads} threads" for threads, peak in fma_peaks.items()
    )
    text.append(
        f"measured peaks: {measured or 'none'} (float32 multiply-adds), {bandwidth / 1e9:.1f} GB/s (copy)"
    )
    return "\n".join(text)
