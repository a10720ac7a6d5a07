"""A bar chart as SVG: the median of each system, with a line from its lowest to its highest value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

__all__ = ["Bar", "bar_chart"]

WIDTH = 760
LABEL_WIDTH = 270
VALUE_WIDTH = 90
ROW = 30
TOP = 52
BAR = 16
OURS = "#3f51b5"
OTHER = "#9aa5b8"
INK = "#1f2430"


@dataclass(frozen=True, slots=True)
class Bar:
    """One system. `ours`: in the colour of this project."""

    label: str
    value: float
    low: float
    high: float
    text: str
    ours: bool = False


def bar_chart(title: str, unit: str, bars: Sequence[Bar]) -> str:
    """The text of the file. The bars begin at zero, and the longest line fills the width."""
    height = TOP + ROW * len(bars) + 12
    most = max((bar.high for bar in bars), default=0.0) or 1.0
    scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / most
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, sans-serif" role="img">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="15" font-weight="bold" fill="{INK}">{escape(title)}</text>',
        (
            f'<text x="16" y="42" font-size="12" fill="#5b6472">{escape(unit)}; the line is from the lowest to the '
            "highest turn</text>"
        ),
    ]
    for row, bar in enumerate(bars):
        lines += _bar(bar, TOP + ROW * row, scale)
    return "\n".join([*lines, "</svg>", ""])


def _bar(bar: Bar, top: float, scale: float) -> list[str]:
    middle = top + ROW / 2
    length = max(1.0, bar.value * scale)
    low, high = LABEL_WIDTH + bar.low * scale, LABEL_WIDTH + bar.high * scale
    y = f"{middle + 4:.1f}"
    weight = ' font-weight="bold"' if bar.ours else ""
    return [
        (
            f'<text x="{LABEL_WIDTH - 10}" y="{y}" font-size="12" text-anchor="end" fill="{INK}"{weight}>'
            f"{escape(bar.label)}</text>"
        ),
        (
            f'<rect x="{LABEL_WIDTH}" y="{middle - BAR / 2:.1f}" width="{length:.1f}" height="{BAR}" '
            f'fill="{OURS if bar.ours else OTHER}"/>'
        ),
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}" stroke="{INK}" stroke-width="1.5"/>',
        (
            f'<text x="{max(LABEL_WIDTH + length, high) + 8:.1f}" y="{y}" font-size="12" fill="{INK}"{weight}>'
            f"{escape(bar.text)}</text>"
        ),
    ]
