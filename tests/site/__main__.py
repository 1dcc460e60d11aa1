"""Builds the documentation's site into `build/site`; a warning is an error, and so is a page's fault.

    .venv/bin/python -m tests.site

What of the reference is made from the code goes to `build/docs` first, from where the pages include it.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import os
import subprocess
import sys

from . import pages, reference

ROOT = reference.ROOT


def main() -> int:
    made = ROOT / "build" / "docs"
    made.mkdir(parents=True, exist_ok=True)
    for name, text in reference.pieces().items():
        (made / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    sys.stdout.write(done.stdout)
    warned = ["the build has warnings"] if "warning" in done.stdout.lower() else []  # some pass --strict
    wrong = [*warned, *pages.faults(ROOT / "build" / "site")]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return done.returncode or int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
