"""The host's distribution, and the lines of a piece of advice that apply to it.

Advice that differs by distribution has a line for each, which begins with the distribution's name. A test shows
all of them, because its output may be read on another host; `vmsnap doctor` shows only the host's own.
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
    """The host's family, None if it is another one or unknown."""
    try:
        return family_of(platform.freedesktop_os_release())
    except OSError:
        return None


def family_of(release: Mapping[str, str]) -> Family | None:
    """The family according to the fields of os-release(5), None if it is another one."""
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    return next((IDS[name] for name in names if name in IDS), None)


def lines_for(advice: str, family: Family | None) -> str:
    """Return `advice` without the lines for other families and without its own label; all of it if None."""
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
