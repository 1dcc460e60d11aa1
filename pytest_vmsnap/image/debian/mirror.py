"""The Debian mirror that this host uses."""

from __future__ import annotations

import platform
import subprocess

from pytest_vmsnap.image import commands

OFFICIAL = ".debian.org"


def of_this_host(suite: str) -> list[str]:
    """Return source lines for mmdebstrap if this host is a Debian with a mirror of its own, else none.

    apt reports the mirrors, since it knows every format of its sources (apt-get(8), indextargets). Without a
    line, mmdebstrap uses the default mirror.
    """
    try:
        host = platform.freedesktop_os_release()
    except OSError:
        return []
    if host.get("ID") != "debian":
        return []
    codename = host.get("VERSION_CODENAME", "sid")
    mirrors = _mirrors()
    main, security = mirrors.get(codename), mirrors.get(f"{codename}-security")
    if main is None or OFFICIAL in main:
        return []
    lines = [f"deb {main} {suite} main"]
    if suite not in ("sid", "unstable"):
        lines.append(f"deb {main} {suite}-updates main")
        if security:
            lines.append(f"deb {security} {suite}-security main")
    return lines


def _mirrors() -> dict[str, str]:
    """The address of the component ``main`` by suite, from this host's apt sources; empty without apt."""
    command = [
        "apt-get",
        "indextargets",
        "--format",
        "$(RELEASE) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]
    try:
        done = subprocess.run(
            command,
            env=commands.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return {}
    rows = (line.split(" ", 2) for line in done.stdout.splitlines())
    return {row[0]: row[2] for row in rows if len(row) == 3 and row[1] == "main"}
