"""Make the output of a guest or of QEMU readable."""

from __future__ import annotations

import re

# ECMA-48: strings (OSC, DCS, APC, PM, SOS), control sequences, and the other escape sequences
SEQUENCES = re.compile(
    r"\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]", re.DOTALL
)
LINE_CHARACTERS = 100
OVERWRITTEN = re.compile("[^\b]\b")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# libvirt's lines at the start of QEMU's log: versions, the environment, and a page of command line
PREAMBLE = re.compile(r"^\S+ \S+: starting up libvirt version.*\n(?:.* \\\n)*.*\n?", re.MULTILINE)
OF_LIBVIRT = re.compile(
    r"^(?:\S+ \S+: )?(?:Domain id=\d+ is tainted.*|shutting down, reason=.*|char device redirected to .*)\n?",
    re.MULTILINE,
)


def readable(text: str) -> str:
    """Return `text` as a terminal would show it, without control characters except tab and newline.

    Text that a carriage return or a backspace overwrites is removed.
    """
    plain = SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return "\n".join(_line(line) for line in plain.split("\n"))


def last_line(text: str) -> str:
    """The last line of `text` that is not empty, as `readable` shows it, at most `LINE_CHARACTERS` of it."""
    line = next((line.strip() for line in reversed(readable(text).split("\n")) if line.strip()), "")
    return line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - 1] + "…"


def _line(line: str) -> str:
    if "\r" in line:
        line = next((part for part in reversed(line.split("\r")) if part.strip()), "")
    while "\b" in line:
        line, count = OVERWRITTEN.subn("", line)
        if not count:
            line = line.replace("\b", "")
    return CONTROLS.sub("", line)


def qemu_output(log: str) -> str:
    """Return what QEMU itself wrote to its log, without libvirt's lines."""
    return OF_LIBVIRT.sub("", PREAMBLE.sub("", log))
