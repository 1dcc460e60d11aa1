"""Check everything that machines need on this host, and show what is missing and what to do.

The exit status is 0 if machines can run, even with warnings, and 1 if something prevents them from running.
"""

# ruff: noqa: T201 - a command's output

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from typing import TYPE_CHECKING

from pytest_vmsnap import image, store
from pytest_vmsnap.errors import HostError, VmsnapError
from pytest_vmsnap.host import choose_uri, default_store, doctor, install_hints, space_for
from pytest_vmsnap.model import Finding, not_checked, worst
from pytest_vmsnap.pool import budget
from pytest_vmsnap.states import image_request, system_store_finding

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_vmsnap.model import Settings

NAME = "doctor"

INDENT, COLUMN = 9, 14  # widths: the longest mark, the longest name
WIDTH = 100  # without a terminal
MARKS = {"ok": "ok", "warning": "warning", "failure": "FAILURE"}
VERDICTS = {
    "ok": "Machines can run here.",
    "warning": "Machines can run here, with the warnings above.",
    "failure": "No machine can run here until the failures above are fixed.",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vmsnap doctor`."""
    parser.add_argument("--json", action="store_true", help="print all findings as one JSON object")
    parser.set_defaults(run=run)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Examine the host, and print each finding at once; returns 1 if machines cannot run."""
    family = install_hints.of_this_host()
    found: list[Finding] = []
    told: set[str] = set()
    for finding in _findings(settings):
        own = dataclasses.replace(finding, advice=install_hints.lines_for(finding.advice, family))
        found.append(own)
        if not arguments.json:
            print(*_lines(own, told), sep="\n", flush=True)
    status = worst(found)
    if arguments.json:
        print(
            json.dumps({"status": status, "findings": [dataclasses.asdict(each) for each in found]}, indent=1)
        )
    else:
        print(f"\n{VERDICTS[status]}")
    return int(status == "failure")


def _findings(settings: Settings) -> Iterator[Finding]:
    path = _store(settings)
    yield from doctor.examine(settings, store=path)
    ahead = budget.most_standbys(settings.standby)
    yield doctor.memory(settings.memory, ahead=ahead, has_room=lambda: budget.has_room(settings.memory))
    yield from store.findings(path, limit_mib=settings.store_limit, needed_mib=space_for(settings.memory))
    if settings.system_store:
        yield system_store_finding(settings.system_store)
    try:
        request = image_request(settings.spec(), root=settings.root, mirror=settings.image_mirror)
    except VmsnapError as error:
        yield Finding(name="image", status="failure", found=error.message, advice=error.hint)
        yield not_checked("image-tools", "no image")
    else:
        yield from image.check_image(request, path)


def _store(settings: Settings) -> Path:
    try:
        return settings.store or default_store(choose_uri(settings))
    except HostError:  # the URI is wrong, which has its own finding
        return default_store(None)


def _lines(finding: Finding, told: set[str]) -> Iterator[str]:
    """The lines of a finding: what was found, and its advice, unless that is in `told` already."""
    first, *further = _wrapped(finding.found, INDENT + COLUMN + 1)
    yield f"{MARKS[finding.status]:{INDENT}}{finding.name:{COLUMN}} {first}"
    yield from (f"{'':{INDENT + COLUMN + 1}}{line}" for line in further)
    if finding.advice and finding.status != "ok":
        advice = "what to do: as above" if finding.advice in told else finding.advice
        told.add(finding.advice)
        for line in advice.splitlines():
            whole = [line] if line.startswith(" ") else _wrapped(line, INDENT)  # do not wrap commands
            yield from (f"{'':{INDENT}}{part}" for part in whole)


def _wrapped(text: str, indent: int) -> list[str]:
    width = shutil.get_terminal_size((WIDTH, 0)).columns
    return textwrap.wrap(text, max(WIDTH // 2, width - indent), break_long_words=False) or [""]
