"""Of an advice, what is for this host."""

from __future__ import annotations

import pytest

from pytest_vmsnap.host.accelerator import JOIN_GROUP
from pytest_vmsnap.host.install_hints import Family, family_of, lines_for
from pytest_vmsnap.host.libvirt import BINDING, INSTALL
from pytest_vmsnap.image.debian.tools import INSTALL as IMAGE_TOOLS


@pytest.mark.parametrize(
    ("release", "family"),
    [
        ({"ID": "debian"}, "debian"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "debian"),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "debian"),
        ({"ID": "fedora"}, "fedora"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "fedora"),
        ({"ID": "arch"}, "arch"),
        ({"ID": "manjaro", "ID_LIKE": "arch"}, "arch"),
        ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, None),
        ({}, None),
    ],
)
def test_the_family_is_read_from_the_release(release: dict[str, str], family: Family | None) -> None:
    assert family_of(release) == family


@pytest.mark.parametrize("advice", [INSTALL, BINDING, IMAGE_TOOLS])
@pytest.mark.parametrize(
    ("family", "tool", "others"),
    [
        ("debian", "apt install", ("dnf", "pacman", "AUR", "Fedora", "Arch:")),
        ("fedora", "dnf install", ("apt ", "pacman", "AUR", "Debian, Ubuntu", "Arch:")),
        (
            "arch",
            "mmdebstrap and debian-archive-keyring (AUR)|pacman -S",
            ("apt ", "dnf", "Debian, ", "Fedora"),
        ),
    ],
)
def test_an_advice_is_cut_to_the_hosts_distribution(
    advice: str, family: Family, tool: str, others: tuple[str, ...]
) -> None:
    own = lines_for(advice, family)
    assert any(words in own for words in tool.split("|"))
    for words in others:
        assert words not in own
    first, last = advice.splitlines()[0], advice.splitlines()[-1]
    assert own.startswith(first)  # what is for all stays
    assert own.endswith(last) or last.strip().startswith("Arch:")


def test_where_the_distribution_is_unknown_all_is_told() -> None:
    assert lines_for(INSTALL, None) == INSTALL


def test_advice_for_all_is_left_as_it_is() -> None:
    assert lines_for(JOIN_GROUP, "arch") == JOIN_GROUP
