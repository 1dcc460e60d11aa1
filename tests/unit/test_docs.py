"""The reference says what the code says."""

from __future__ import annotations

from pathlib import Path

from pytest_vmsnap import selection
from pytest_vmsnap.options import OPTIONS

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


def option_table() -> str:
    rows = ["| command line | environment | configuration file | what |", "| --- | --- | --- | --- |"]
    for option in OPTIONS:
        what = option.description.replace("|", "\\|")
        others = " | " if option.command_line_only else f"`{option.variable}` | `{option.key}`"
        rows.append(f"| `{option.flag}` | {others} | {what} |")
    return "\n".join(rows)


def test_the_reference_has_every_option_as_the_table_has_it() -> None:
    assert option_table() in REFERENCE.read_text()


def test_the_reference_has_every_marker_with_its_meaning() -> None:
    text = REFERENCE.read_text()
    for line in selection.marker_lines():
        name, _, meaning = line.partition(": ")
        assert f"`{name.split('(')[0]}" in text
        assert meaning in text
