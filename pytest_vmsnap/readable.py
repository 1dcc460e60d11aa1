"""What a guest or QEMU printed, as a person can read it."""

from __future__ import annotations

import re

# ECMA-48: strings (OSC, DCS, APC, PM, SOS), control sequences, and the other escape sequences
SEQUENCES = re.compile(
    r"\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]", re.DOTALL
)
OVERWRITTEN = re.compile("[^\b]\b")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# libvirt begins a QEMU's log with its own words: versions, the environment, and a page of command line
PREAMBLE = re.compile(r"^\S+ \S+: starting up libvirt version.*\n(?:.* \\\n)*.*\n?", re.MULTILINE)
OF_LIBVIRT = re.compile(
    r"^(?:\S+ \S+: )?(?:Domain id=\d+ is tainted.*|shutting down, reason=.*|char device redirected to .*)\n?",
    re.MULTILINE,
)


def readable(text: str) -> str:
    """`text` as a terminal would leave it: no control characters but tab and newline.

    What a carriage return or a backspace overwrites is gone.
    """
    plain = SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return "\n".join(_line(line) for line in plain.split("\n"))


def _line(line: str) -> str:
    if "\r" in line:
        line = next((part for part in reversed(line.split("\r")) if part.strip()), "")
    while "\b" in line:
        line, count = OVERWRITTEN.subn("", line)
        if not count:
            line = line.replace("\b", "")
    return CONTROLS.sub("", line)


def words_of_qemu(log: str) -> str:
    """What QEMU itself said in its log, without what libvirt writes there."""
    return OF_LIBVIRT.sub("", PREAMBLE.sub("", log))
