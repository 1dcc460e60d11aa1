"""Which distribution the host is, and what of an advice is for it.

An advice that differs has a line for each, which begins with its name: all of them where a test tells it, for
its output may be read elsewhere; only the host's own by `vmsnap doctor`.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Family = Literal["debian", "fedora", "arch"]

LABELS: Mapping[Family, str] = {"debian": "Debian, Ubuntu:", "fedora": "Fedora:", "arch": "Arch:"}
# os-release(5), ID and ID_LIKE
IDS: Mapping[str, Family] = {
    "debian": "debian",
    "ubuntu": "debian",
    "fedora": "fedora",
    "rhel": "fedora",
    "centos": "fedora",
    "arch": "arch",
    "archlinux": "arch",
}


def of_this_host() -> Family | None:
    """The host's family, None where it is another, or is not told."""
    try:
        return family_of(platform.freedesktop_os_release())
    except OSError:
        return None


def family_of(release: Mapping[str, str]) -> Family | None:
    """The family by the fields of os-release(5)."""
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    return next((IDS[name] for name in names if name in IDS), None)


def fitting(advice: str, family: Family | None) -> str:
    """`advice` without the lines for other distributions, and without the name before its own; all if None."""
    if family is None:
        return advice
    lines = []
    for line in advice.splitlines():
        labelled = next((each for each in LABELS if line.strip().startswith(LABELS[each])), None)
        if labelled is None:
            lines.append(line)
        elif labelled == family:
            start = line[: len(line) - len(line.lstrip())]
            lines.append(start + line.strip().removeprefix(LABELS[family]).strip())
    return "\n".join(lines)
