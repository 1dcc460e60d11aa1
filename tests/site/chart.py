"""The chart of the speed that the README shows, drawn from the measurements in ``docs/explanation/revert.md``:

    python -m tests.site.chart

Writes ``docs/speed.svg``.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "docs" / "explanation" / "revert.md"
TARGET = ROOT / "docs" / "speed.svg"
# a row of the table, its label in the chart, and whether it is this plugin
ROWS = (
    ("standby", "pytest-vmsnap, machine made ahead", True),
    ("back-to-back", "pytest-vmsnap, machine not made ahead", True),
    ("loadvm, guest agent", "QEMU: loadvm", False),
    ("libvirt revertToSnapshot, guest agent", "libvirt: snapshot-revert", False),
    ("reboot, fresh overlay, guest agent", "boot with a fresh disk", False),
)
TITLE = "Until a clean machine has answered its first command"
SUBTITLE = "median, {heading}, software emulation"
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600 }
.ours { fill: #2b6cb0 } .other { fill: #a8b1bb }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .ours { fill: #58a6ff } .other { fill: #6e7681 } }
"""
LEFT, WIDTH, TOP, ROW, BAR = 310, 440, 54, 28, 16  # room for the widest of the fonts that a reader may have


def medians(table: str) -> tuple[str, dict[str, float]]:
    """The heading of the table's first column of figures, and that column's medians in seconds, by row."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines() if line[:1] == "|"
    ]
    found = {}
    for name, first, *_ in rows[2:]:
        figure = re.match(r"([\d.]+) (ms|s) ", first)
        assert figure, first
        found[name] = float(figure[1]) / (1000 if figure[2] == "ms" else 1)
    return rows[0][1], found


def draw(table: str) -> str:
    """The chart as SVG: bars on a linear scale."""
    heading, found = medians(table)
    longest = max(found[name] for name, _, _ in ROWS)
    bars = [
        f'<text class="title" x="0" y="16">{TITLE}</text>',
        f'<text x="0" y="34">{escape(SUBTITLE.format(heading=heading))}</text>',
    ]
    for number, (name, label, ours) in enumerate(ROWS):
        seconds = found[name]
        y = TOP + number * ROW
        length = max(2.0, WIDTH * seconds / longest)
        shown = f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
        bars += [
            f'<text x="{LEFT - 10}" y="{y + 13}" text-anchor="end">{escape(label)}</text>',
            f'<rect class="{"ours" if ours else "other"}" x="{LEFT}" y="{y}" rx="2" '
            f'width="{length:.1f}" height="{BAR}"/>',
            f'<text x="{LEFT + length + 8:.1f}" y="{y + 13}">{shown}</text>',
        ]
    width, height = LEFT + WIDTH + 80, TOP + len(ROWS) * ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>{STYLE}</style>\n' + "\n".join(bars) + "\n</svg>\n"
    )


if __name__ == "__main__":
    TARGET.write_text(draw(MEASURED.read_text()))
