"""What a guest printed, as a person reads it."""

from __future__ import annotations

import pytest

from pytest_vmsnap.errors import BootError, GuestGone
from pytest_vmsnap.readable import LINE_CHARACTERS, last_line, qemu_output, readable

LOG = """\
2026-11-27 18:10:11.123+0000: starting up libvirt version: 9.0.0, package: 4 (Debian), qemu version: 7.2.22
LC_ALL=C \\
PATH=/usr/bin \\
/usr/bin/qemu-system-x86_64 \\
-name guest=vm,debug-threads=on \\
-msg timestamp=on
2026-11-27 18:10:11.200+0000: Domain id=1 is tainted: custom-argv
char device redirected to /dev/pts/3 (label charserial0)
KVM internal error. Suberror: 1
emulation failure
2026-11-27 18:10:12.000+0000: shutting down, reason=crashed
"""


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mssh\x1b[0m.\r\n", "  OK  ] Started ssh.\n"),
        ("\x1b]0;title\x07prompt# ", "prompt# "),
        ("\x1b[2J\x1b[H\x1bcgrub rescue> ", "grub rescue> "),
        ("10%\r20%\rdone\r", "done"),
        ("[ ***  ] A stop job (1s)\r\x1b[K[  *** ] A stop job (2s)", "[  *** ] A stop job (2s)"),
        ("pasx\bsword", "password"),
        ("\b\babc", "abc"),
        ("a\x00b\x9bcd\x7f\x0e\x0f", "abd"),
        ("größe ✓\n", "größe ✓\n"),
        ("\x1b(B\x1b[?25l\x1b7text\x1b8", "text"),
        ("ends in \x1b[", "ends in "),
    ],
)
def test_control_characters_are_gone_as_from_a_terminal(raw: str, shown: str) -> None:
    assert readable(raw) == shown


def test_what_libvirt_writes_to_the_log_is_not_qemus() -> None:
    assert qemu_output(LOG) == "KVM internal error. Suberror: 1\nemulation failure\n"


@pytest.mark.parametrize("kind", [BootError, GuestGone])
def test_an_error_tells_the_console_from_what_qemu_says(kind: type[BootError] | type[GuestGone]) -> None:
    text = str(kind("it ended", console="\x1b[1mlast words\x1b[0m\r\n", log=LOG))
    assert "last lines of the console:\n  last words\nQEMU printed:\n  KVM internal error" in text
    assert "-name" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("\r\n\x1b[0m\n", ""),
        ("one\n\x1b[32mtwo\x1b[0m \r\n\n", "two"),
        ("Loading 10 %\rLoading 20 %", "Loading 20 %"),
        ("x" * 300, "x" * (LINE_CHARACTERS - 1) + "…"),
    ],
)
def test_the_last_line_is_one_that_a_person_can_read(text: str, line: str) -> None:
    assert last_line(text) == line
