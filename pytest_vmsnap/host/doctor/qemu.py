"""QEMU: whether it is installed, and what it supports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.host import emulator
from pytest_vmsnap.host.doctor.from_errors import asked, tried
from pytest_vmsnap.host.domain_xml import MACHINE_TYPE
from pytest_vmsnap.host.qemu_capabilities import IGNORE_SHARED, has_user_network, query_capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_vmsnap.host.libvirt import Connection
    from pytest_vmsnap.model import Finding, Network

NO_USER_NETWORK = (
    "this QEMU was built without user-mode networking (slirp), which vmsnap_network={network} needs: "
    "install a QEMU that has it, or use vmsnap_network=none"
)
NAMES = ("qemu-snapshots", "qemu-network")


def program(connection: Connection | None) -> tuple[Path | None, Finding]:
    """The emulator that libvirt starts, or the one on PATH if libvirt cannot be asked."""

    def found() -> tuple[Path, str]:
        if connection:
            capabilities = connection.domain_capabilities(kind="qemu", machine=MACHINE_TYPE)
            path = emulator.emulator_of(capabilities)
        else:
            path = emulator.installed(emulator.EMULATOR)
        version = emulator.version_of(path)
        emulator.expect_version("QEMU", version, emulator.QEMU_FLOOR)
        return path, version

    by = "" if connection else ", from PATH: libvirt was not asked"

    def told(it: tuple[Path, str]) -> str:
        return f"{it[1]} ({it[0]}{by})"

    value, finding = tried("qemu", found, told)
    return value and value[0], finding


def image_tool() -> Finding:
    """qemu-img, which creates the disks."""

    def found() -> str:
        path = emulator.installed(emulator.QEMU_IMG)
        return f"{emulator.version_of(path)} ({path})"

    return asked("qemu-img", found)


def capabilities(path: Path, network: Network) -> Iterator[Finding]:
    """Check that this QEMU supports snapshots and the `network` of the machines."""

    def saving() -> str:
        with emulator.qmp_session(path) as ask:
            return f"memory stays in its file ({IGNORE_SHARED}), {query_capabilities(ask)}"

    def networking() -> str:
        with emulator.qmp_session(path) as ask:
            if network != "none" and not has_user_network(ask):
                raise HostError("no user-mode networking", hint=NO_USER_NETWORK.format(network=network))
        return "no network is needed (vmsnap_network=none)" if network == "none" else "user-mode networking"

    yield from map(asked, NAMES, (saving, networking))
