"""All checks of the host, one after another: each goes on where one before it failed."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.host import host
from pytest_vmsnap.host.access import Access, name_of
from pytest_vmsnap.host.doctor import kvm, qemu, software
from pytest_vmsnap.host.doctor.trying import tried
from pytest_vmsnap.host.run import Run
from pytest_vmsnap.host.uri import EMBED
from pytest_vmsnap.model import Finding, not_asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_vmsnap.host.kvm_probe import User
    from pytest_vmsnap.host.libvirt import Connection
    from pytest_vmsnap.host.uri import UriChoice
    from pytest_vmsnap.model import Settings


def examine(settings: Settings, *, store: Path) -> Iterator[Finding]:
    """Each finding as it is made. No machine is started but the probe of KVM, and nothing stays.

    `store` is the store's directory, which need not be there.
    """
    yield software.python()
    yield (binding := software.binding())
    choice, finding = tried("uri", partial(host.choose_uri, settings), _chosen)
    yield finding
    with ExitStack() as stack:
        connection = None
        if choice is None or binding.status != "ok":
            why = "no URI" if choice is None else "no libvirt-python"
            yield not_asked("daemon", why)
        else:
            why = f"{choice.uri} does not answer"
            connection, finding = tried("daemon", partial(_connected, choice, stack, store=store), _answer)
            yield finding
        yield software.libvirt_of(connection) if connection else software.installed_libvirt(why)
        emulator, finding = qemu.program(connection)
        yield finding
        yield from qemu.abilities(emulator, settings.network) if emulator else _without_qemu(*qemu.NAMES)
        yield qemu.image_tool()
        user = None
        if choice and connection and choice.mode == "system":
            user, findings = _other_user(choice, connection, store)
            yield from findings
        yield from kvm.circumstances(settings.accel, user)
        if emulator:
            yield kvm.proof(settings.accel, emulator, store=store, user=user)
        else:
            yield from _without_qemu("accelerator")


def _connected(choice: UriChoice, stack: ExitStack, *, store: Path) -> Connection:
    place = stack.enter_context(tempfile.TemporaryDirectory(prefix="vmsnap-doctor-"))
    run = Run(Path(place))
    stack.callback(run.close)
    return host.connect(choice, run, stack, store=store)


def _chosen(choice: UriChoice) -> str:
    return f"{choice.uri} ({choice.reason})"


def _answer(connection: Connection) -> str:
    if connection.uri.startswith(EMBED):
        return "none is needed: libvirt's driver runs within pytest's process"
    return f"{connection.uri} answers"


def _without_qemu(*names: str) -> Iterator[Finding]:
    return (not_asked(name, "no QEMU") for name in names)


def _other_user(
    choice: UriChoice, connection: Connection, store: Path
) -> tuple[User | None, Iterable[Finding]]:
    """Whom QEMU runs as where that is not who we are, and what follows from it."""

    def known() -> Access:
        user, _ = host.confinement(choice, connection)
        above = next(parent for parent in store.parents if parent.is_dir())
        reach = Access(user=user)
        host.expect_reachable(reach, store, above)
        return reach

    reach, finding = tried("qemu-user", known, _reaching)
    if reach is None:
        return None, [finding]
    warnings = host.warnings(reach.user, reach)
    return reach.user, [finding, *(Finding(name="libvirt-probe", status="warning", found=w) for w in warnings)]


def _reaching(reach: Access) -> str:
    return f"QEMU runs as {name_of(reach.user[0]) if reach.user else 'we do'}, who may reach the store"
