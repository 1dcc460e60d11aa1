"""A script as the one line that the guest shell reads and runs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_vmsnap.guest.streams import joined, source_of

if TYPE_CHECKING:
    from pytest_vmsnap.guest.streams import Source

# The shell must read its line byte by byte, since a port cannot seek; a process that reads it at once costs a
# fork. At this length both cost the same.
LONGEST_LINE = 1500  # bytes


def program_of(script: bytes, source: Source | None) -> tuple[bytes, Source | None]:
    """Return the line that runs `script` with `source` as its input, and what to send on the input's port.

    The line begins with ``<`` if it reads that port. Input that the script leaves unread is read after it, and
    a long script is sent as input itself.
    """
    if len(script) > LONGEST_LINE:
        taken = b"<_vmsnap_script=$(_vmsnap_take %d); " % len(script)
        body, sent = b'"$_vmsnap_script"', script
    else:
        taken, body, sent = b"<", quoted(script), b""
    if source:
        rest = b"IFS= read -r _vmsnap_rest 2>/dev/null && cat >/dev/null; exit $_vmsnap_status"
        guarded = b"{ exec 4<&-; ( eval %s ); _vmsnap_status=$?; %s; }" % (body, rest)
        line = b"%s_vmsnap_take %d | %s" % (taken, source.size, guarded)
        return line, joined(sent, source) if sent else source
    if sent:
        return taken + b"exec 4<&-; eval " + body, source_of(sent)
    plain = b"\n" not in script and script[:1] not in (b"", b"<", b"#", b"?")
    return script if plain else b"eval " + body, None


def quoted(text: bytes) -> bytes:
    """Quote `text` for the guest shell in one line: a variable stands for each newline."""
    quoted = shlex.quote(text.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    return quoted.replace(b"\n", b"'\"$_vmsnap_new\"'")
