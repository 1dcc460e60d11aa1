"""Connect to this host's libvirt, and begin a run."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import HostError
from pytest_vmsnap.host import embedded_driver, permissions
from pytest_vmsnap.host.facts import facts_of
from pytest_vmsnap.host.host import Host
from pytest_vmsnap.host.libvirt import Connection, library
from pytest_vmsnap.host.processes import end_qemus
from pytest_vmsnap.host.run_directory import Run, domain_prefix, remove_logs, sweep
from pytest_vmsnap.host.watchdog import Watchdog

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vmsnap.host.permissions import Permissions
    from pytest_vmsnap.host.uri import UriChoice
    from pytest_vmsnap.model import Settings

log = logging.getLogger("pytest_vmsnap.host")

LEARNED = "libvirt-capabilities"
ENDING_SECONDS = 5.0  # for a daemon that ends a killed run's machines; takes 2 if process 1 reaps slowly


def open_host(settings: Settings, choice: UriChoice, *, store: Path) -> Host:
    """Connect, examine the host, and begin a run with its directories under ``store/runs``.

    First remove what killed runs left there. Raises `NoHypervisor`, `AcceleratorError`, `HostError`.
    """
    swept = sweep(store / "runs")
    with ExitStack() as stack:
        run = Run(store / "runs")
        stack.callback(run.close)
        stack.callback(end_leftovers, run)
        connection = connect(choice, run, stack, store=store)
        for dead in swept:
            log.info("removed what the killed run %s left behind", dead)
            connection.wait_for_end(domain_prefix(dead), timeout=ENDING_SECONDS)
            remove_logs(dead)  # after QEMU's end the daemon writes a last line, if need be to a new file
        user, unconfined = confinement(choice, connection)
        allowed = permissions.Permissions(user=user)
        for directory in (store, store / "runs", run.data):
            allowed.allow_search(directory)
        allowed.allow_write(run.sockets)
        expect_reachable(allowed, store, run.data)
        facts = facts_of(settings, choice, connection, cache=store, user=user, allowed=allowed)
        if choice.mode == "embed":
            embedded_driver.keep_learned(run.sockets, learned=store / LEARNED)
        return Host(
            facts=facts,
            connection=connection,
            run=run,
            permissions=allowed,
            unconfined=unconfined,
            stack=stack.pop_all(),
            store=store,
        )


def end_leftovers(run: Run) -> None:
    """Kill the QEMUs that libvirt did not end: it may have failed, or have lost track of one."""
    if pids := end_qemus(run.prefix):
        log.warning("QEMU processes that libvirt did not end were killed: %s", pids)


def expect_reachable(allowed: Permissions, store: Path, directory: Path) -> None:
    """Raise `HostError` if QEMU cannot reach `directory`, in or above the store; only root can check this."""
    if allowed.user and os.geteuid() == 0 and not allowed.can_search(directory):
        raise HostError(
            f"user {allowed.user[0]}, which libvirt runs QEMU as, cannot reach the store {store}",
            hint="set --vmsnap-store to a directory whose parents other users may pass through; "
            "the plugin opens the store itself to that user only",
        )


def confinement(choice: UriChoice, connection: Connection) -> tuple[tuple[int, int] | None, tuple[str, ...]]:
    """The user that QEMU runs as, None for the current user, and the other security models that confine it.

    Call it once: libvirt may take seconds to answer.
    """
    if choice.mode != "system":
        return None, ()
    capabilities = connection.capabilities()
    user = permissions.qemu_user(capabilities)
    return user, permissions.other_security_models(capabilities) if user else ()


def connect(choice: UriChoice, run: Run, stack: ExitStack, *, store: Path) -> Connection:
    """Connect to libvirt; `stack` closes the connection. Raises `NoHypervisor` if libvirt does not answer."""
    if choice.mode != "embed":
        connection = Connection(choice.uri)
        stack.callback(connection.close)
        return connection
    address = embedded_driver.prepare(run.sockets, learned=store / LEARNED)
    with embedded_driver.logs_to(run.sockets / "libvirt.log"):
        library.modules()
    stack.callback(Watchdog(run).close)
    connection = Connection(address)
    stack.callback(connection.close)
    return connection
