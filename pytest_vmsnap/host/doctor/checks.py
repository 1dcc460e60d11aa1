"""All checks of the host, one after another. A failed check does not stop the next ones."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.host import connect, facts, uri
from pytest_vmsnap.host.doctor import firmware, kvm, packages, qemu
from pytest_vmsnap.host.doctor.from_errors import tried
from pytest_vmsnap.host.permissions import Permissions, name_of
from pytest_vmsnap.host.run_directory import Run
from pytest_vmsnap.host.uri import EMBED
from pytest_vmsnap.model import Finding, not_checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_vmsnap.host.kvm_probe import User
    from pytest_vmsnap.host.libvirt import Connection
    from pytest_vmsnap.host.uri import UriChoice
    from pytest_vmsnap.model import Settings


def examine(settings: Settings, *, store: Path) -> Iterator[Finding]:
    """Yield each finding as soon as it is known. Only the KVM probe starts a guest, and nothing stays behind.

    `store` is the store's directory, which need not exist.
    """
    yield packages.python()
    yield (binding := packages.binding())
    choice, finding = tried("uri", partial(uri.choose_uri, settings), _chosen)
    yield finding
    with ExitStack() as stack:
        connection = None
        if choice is None or binding.status != "ok":
            why = "no URI" if choice is None else "no libvirt-python"
            yield not_checked("daemon", why)
        else:
            why = f"{choice.uri} does not answer"
            connection, finding = tried("daemon", partial(_connected, choice, stack, store=store), _answer)
            yield finding
        yield packages.libvirt_of(connection) if connection else packages.installed_libvirt(why)
        emulator, finding = qemu.program(connection)
        yield finding
        yield from qemu.capabilities(emulator, settings.network) if emulator else _without_qemu(*qemu.NAMES)
        yield qemu.image_tool()
        yield firmware.firmware(settings.firmware)
        user = None
        if choice and connection and choice.mode == "system":
            user, findings = _other_user(choice, connection, store)
            yield from findings
        yield from kvm.prerequisites(settings.accel, user)
        if emulator:
            yield kvm.probe(settings.accel, emulator, store=store, user=user)
        else:
            yield from _without_qemu("accelerator")


def _connected(choice: UriChoice, stack: ExitStack, *, store: Path) -> Connection:
    place = stack.enter_context(tempfile.TemporaryDirectory(prefix="vmsnap-doctor-"))
    run = Run(Path(place))
    stack.callback(run.close)
    return connect.connect(choice, run, stack, store=store)


def _chosen(choice: UriChoice) -> str:
    return f"{choice.uri} ({choice.reason})"


def _answer(connection: Connection) -> str:
    if connection.uri.startswith(EMBED):
        return "none is needed: libvirt's driver runs within pytest's process"
    return f"{connection.uri} answers"


def _without_qemu(*names: str) -> Iterator[Finding]:
    return (not_checked(name, "no QEMU") for name in names)


def _other_user(
    choice: UriChoice, connection: Connection, store: Path
) -> tuple[User | None, Iterable[Finding]]:
    """The user that QEMU runs as, None if unknown or the current user, and the findings about it."""

    def known() -> Permissions:
        user, _ = connect.confinement(choice, connection)
        above = next(parent for parent in store.parents if parent.is_dir())
        allowed = Permissions(user=user)
        connect.expect_reachable(allowed, store, above)
        return allowed

    allowed, finding = tried("qemu-user", known, _reaching)
    if allowed is None:
        return None, [finding]
    warnings = facts.warnings(allowed.user, allowed)
    return allowed.user, [
        finding,
        *(Finding(name="libvirt-probe", status="warning", found=w) for w in warnings),
    ]


def _reaching(allowed: Permissions) -> str:
    return f"QEMU runs as {name_of(allowed.user[0]) if allowed.user else 'you'}, and can reach the store"
