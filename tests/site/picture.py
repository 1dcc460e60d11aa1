"""The picture of a run that the README shows, drawn from a real run, on a host that runs machines:

    python -m tests.site.picture [--check]

It runs tests of the example project twice, so that the second run finds the states in the store, and draws the
second. Writes ``docs/run.svg``; with ``--check``, as in CI, it tells whether that shows what such a run prints.
Figures, and what was found on the host, may differ.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from difflib import unified_diff
from html import unescape
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "docs" / "run.svg"
COMMAND = ("pytest", "-v", "tests/test_clean.py")
COLUMNS = 100
# of rich's template: the fonts that it would fetch from elsewhere
FONT_FACES = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def run() -> str:
    """What pytest prints on a terminal, with its colours."""
    ours, theirs = pty.openpty()
    environment = os.environ | {
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm-256color",
        "PY_COLORS": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # of this repository's tests: a user's header is shorter
        "PYTEST_PLUGINS": "pytest_vmsnap.plugin",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", *COMMAND, "-p", "no:cacheprovider"],
        cwd=ROOT / "example_project",
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    printed = b""
    while piece := _read(ours):
        printed += piece
    if process.wait():
        sys.exit(printed.decode())
    return re.sub("\r+\n", "\n", printed.decode())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux answers EIO once the other end is closed
        return b""


def shortened(printed: str) -> str:
    """The lines that a reader wants: no paths, no list of plugins."""
    dull = re.compile(r"^(rootdir|configfile|plugins|cachedir|testpaths|platform)\b|^\s*$")
    shown = [line.rpartition("\r")[2] for line in printed.split("\n")]  # without what was written over
    lines = [line for line in shown if not dull.match(line)]
    return "\n".join([f"$ {' '.join(COMMAND)}", *lines])


def draw(printed: str) -> str:
    """The picture of what was printed, as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(printed))
    return FONT_FACES.sub("", console.export_svg(title="example_project"))


def lasting(picture: str) -> list[str]:
    """The lines of a picture, without figures and what was found on the host."""
    texts = re.findall(r"<text [^>]*?y=\"([\d.]+)\"[^>]*>(.*?)</text>", picture)
    lines = ["".join(text for _, text in group) for _, group in groupby(texts, key=lambda found: found[0])]
    lines = [
        re.sub(r"=+", "=", re.sub(r"\d+", "0", unescape(line))).replace("\xa0", " ").strip() for line in lines
    ]
    return [line for line in lines if line.startswith(("$", "=", "collected", "tests/", "vmsnap: image"))]


def main() -> int:
    run()
    picture = draw(shortened(run())) + "\n"
    if "--check" not in sys.argv:
        TARGET.write_text(picture)
        return 0
    drawn, expected = lasting(picture), lasting(TARGET.read_text())
    if drawn == expected:
        return 0
    print(*unified_diff(expected, drawn, str(TARGET.relative_to(ROOT)), "this run", lineterm=""), sep="\n")
    print("the picture is out of date: draw it again with `python -m tests.site.picture`")
    return 1


if __name__ == "__main__":
    sys.exit(main())
