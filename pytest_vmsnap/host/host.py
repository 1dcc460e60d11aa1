"""The host's facts, and a connection to its libvirt, for one run."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pytest_vmsnap.errors import HostError, StoreFull
from pytest_vmsnap.host import accelerator, access, embed, emulator, uri
from pytest_vmsnap.host.cpu import guest_cpu
from pytest_vmsnap.host.domain_xml import MACHINE_TYPE
from pytest_vmsnap.host.libvirt import Connection, library
from pytest_vmsnap.host.processes import end_qemus
from pytest_vmsnap.host.run import Run, domain_prefix, libvirt_logs, remove_logs, sweep
from pytest_vmsnap.host.watchdog import Watchdog

if TYPE_CHECKING:
    from pytest_vmsnap.host.accelerator import Accelerator
    from pytest_vmsnap.host.access import Access
    from pytest_vmsnap.host.uri import UriChoice
    from pytest_vmsnap.model import Settings

log = logging.getLogger("pytest_vmsnap.host")

CPUS = 2
# Emulating several processors at once, QEMU 7.2 runs code that another of them has just patched: Linux, which
# patches itself ("jump labels"), dies of "Oops: int3" (measured: of sysctl kernel.sched_schedstats within a
# second; of a boot one in some dozens; with one processor of none).
SEVERAL_CPUS_FLOOR = (8, 1)
LEARNED = "libvirt-capabilities"
COPIES = "copies"  # of the user's files, in the store
ENDING_SECONDS = 5.0  # for a daemon that ends what a killed run had: 2 where process 1 reaps slowly
SPARE_MIB = 256  # what overlays, consoles and device states may need beside the memory
MORE_ROOM = "free some space, or choose another directory with --vmsnap-store"  # what a person can do


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found on this host: shown in the header, and part of what a machine is made from."""

    uri: UriChoice
    accelerator: Accelerator
    emulator: Path
    machine_type: str
    libvirt_version: str
    qemu_version: str
    warnings: tuple[str, ...] = ()

    @property
    def guest_cpu(self) -> str:
        """The processor that a guest sees."""
        return guest_cpu(self.accelerator)

    @property
    def cpus(self) -> int:
        """The number of processors of a machine whose spec leaves it open."""
        return CPUS if self._emulates_several else 1

    @property
    def _emulates_several(self) -> bool:
        return self.accelerator.name == "kvm" or emulator.numbers(self.qemu_version) >= SEVERAL_CPUS_FLOOR

    def doubts(self, cpus: int) -> str:
        """What is to be said of a machine with so many processors; empty if nothing is."""
        if cpus == 1 or self._emulates_several:
            return ""
        return (
            f"{cpus} CPUs: QEMU {self.qemu_version} emulates several at once in a way that kills the guest's "
            "kernel now and then (Oops: int3); 1 is safe, as is QEMU 8.1 or later, or KVM"
        )

    @property
    def kind(self) -> Literal["kvm", "qemu"]:
        """libvirt's domain type."""
        return "kvm" if self.accelerator.name == "kvm" else "qemu"


class Host:
    """This host for one run: facts, connection, the run's directories, and what QEMU may reach.

    Made by `open_host`; `close` ends every machine of the run and removes what the run had on disk.
    """

    def __init__(
        self,
        *,
        facts: Facts,
        connection: Connection,
        run: Run,
        access: Access,
        unconfined: tuple[str, ...],
        stack: ExitStack,
        store: Path,
    ) -> None:
        self.facts = facts
        self.connection = connection
        self.run = run
        self.access = access
        self.unconfined = unconfined  # security models switched off for our domains: they know no memory file
        self._stack = stack
        self._store = store

    @property
    def log_directory(self) -> Path:
        """Where libvirt keeps QEMU's own output, a file for each domain (libvirt.org, "QEMU driver")."""
        logs = libvirt_logs()
        return {**logs, "embed": self.run.sockets / "log" / "qemu"}[self.facts.uri.mode]

    def let_through(self, path: Path) -> None:
        """Let QEMU pass through the directories of the store that lead to `path`."""
        for parent in [parent for parent in path.parents if parent.is_relative_to(self._store)]:
            self.access.to_enter(parent)

    def reachable(self, path: Path) -> Path:
        """`path`, or a copy of it in the store where QEMU could not read it itself.

        Files in the store are given to QEMU; a person's file keeps its owner and mode.
        """
        if self.access.user is None:
            return path
        if path.is_relative_to(self._store):
            self.let_through(path)
            self.access.to_read(path)
            return path
        if self.access.can_read(path):
            return path
        found = path.stat()
        copy = self._store / COPIES / f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}" / path.name
        if not copy.exists():
            log.info("QEMU's user cannot read %s: copied", path)
            draft = self.run.data / copy.parent.name
            draft.mkdir(mode=0o700)
            command = ["cp", "--reflink=auto", "--sparse=always", "--no-preserve=all", str(path), str(draft)]
            subprocess.run(command, check=True)
            with suppress(OSError):  # another run was quicker
                draft.rename(copy.parent)
        return self.reachable(copy)

    def expect_space(self, memory_mib: int) -> None:
        """Raise `StoreFull` where the store has no room for a machine's memory: QEMU would die of it."""
        free = shutil.disk_usage(self.run.data).free >> 20
        if free < space_for(memory_mib):
            raise StoreFull(
                f"{self._store} has {free} MiB free; a machine of {memory_mib} MiB needs "
                f"{space_for(memory_mib)} MiB there for its memory",
                hint=MORE_ROOM,
            )

    def demote(self, reason: str) -> None:
        """Go on with software emulation, in this run and in later ones: KVM does not run a real guest here."""
        accelerator.demote(self._store, self.facts.emulator, reason)
        self.facts = replace(self.facts, accelerator=accelerator.Accelerator(name="tcg", reason=reason))

    def kill_machines(self) -> None:
        """Kill every QEMU of this run, whatever it does: one that hangs does not answer libvirt."""
        if pids := end_qemus(self.run.prefix):
            log.info("QEMU processes that did not end were killed: %s", pids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the run."""
        self._stack.close()


def space_for(memory_mib: int) -> int:
    """How many MiB a machine with so much memory may take in the store."""
    return memory_mib + SPARE_MIB


def default_store(choice: UriChoice | None) -> Path:
    """Where the store is when no option says: the user's cache directory.

    In system mode QEMU is another user, who can reach nothing in root's home: there it is the system's.
    """
    import platformdirs

    if choice and choice.mode == "system" and os.geteuid() == 0:
        return Path("/var/cache/pytest-vmsnap")
    return platformdirs.user_cache_path("pytest-vmsnap")


def choose_uri(settings: Settings) -> UriChoice:
    """Which libvirt is used, before anything is connected."""
    uid = os.geteuid()
    answers = settings.uri is None and uid == 0 and uri.system_daemon_answers()
    return uri.choose(settings.uri, uid=uid, system_answers=answers)


def open_host(settings: Settings, choice: UriChoice, *, store: Path) -> Host:
    """Connect, look at the host, and begin a run with its directories under ``store/runs``.

    What killed runs left there is removed first. Raises `NoHypervisor`, `AcceleratorError`, `HostError`.
    """
    swept = sweep(store / "runs")
    with ExitStack() as stack:
        run = Run(store / "runs")
        stack.callback(run.close)
        connection = connect(choice, run, stack, store=store)
        for dead in swept:
            log.info("removed what the killed run %s left behind", dead)
            connection.wait_for_end(domain_prefix(dead), timeout=ENDING_SECONDS)
            remove_logs(dead)  # the daemon writes a last line when the QEMU has gone, in a new file if need be
        user, unconfined = confinement(choice, connection)
        reach = access.Access(user=user)
        for directory in (store, store / "runs", run.data):
            reach.to_enter(directory)
        reach.to_write(run.sockets)
        expect_reachable(reach, store, run.data)
        facts = _facts(settings, choice, connection, cache=store, user=user, reach=reach)
        if choice.mode == "embed":
            embed.keep_learned(run.sockets, learned=store / LEARNED)
        return Host(
            facts=facts,
            connection=connection,
            run=run,
            access=reach,
            unconfined=unconfined,
            stack=stack.pop_all(),
            store=store,
        )


def expect_reachable(reach: Access, store: Path, directory: Path) -> None:
    """Raise `HostError` where QEMU cannot reach `directory`, of the store or above it; only root can ask."""
    if reach.user and os.geteuid() == 0 and not reach.can_enter(directory):
        raise HostError(
            f"the store {store} cannot be reached by user {reach.user[0]}, whom libvirt runs QEMU as",
            hint="choose a directory that others may pass through, with --vmsnap-store; "
            "the store itself is opened to that user alone",
        )


def confinement(choice: UriChoice, connection: Connection) -> tuple[tuple[int, int] | None, tuple[str, ...]]:
    """The user that QEMU runs as, None for who we are, and what else confines it.

    Asked once, for an answer may take seconds.
    """
    if choice.mode != "system":
        return None, ()
    capabilities = connection.capabilities()
    user = access.qemu_user(capabilities)
    return user, access.other_security_models(capabilities) if user else ()


def connect(choice: UriChoice, run: Run, stack: ExitStack, *, store: Path) -> Connection:
    """A connection that `stack` closes. Raises `NoHypervisor` where nobody answers."""
    if choice.mode != "embed":
        connection = Connection(choice.uri)
        stack.callback(connection.close)
        return connection
    address = embed.prepare(run.sockets, learned=store / LEARNED)
    with embed.logs_to(run.sockets / "libvirt.log"):
        library.modules()
    stack.callback(Watchdog(run).close)
    connection = Connection(address)
    stack.callback(connection.close)
    return connection


def _facts(
    settings: Settings,
    choice: UriChoice,
    connection: Connection,
    *,
    cache: Path,
    user: tuple[int, int] | None,
    reach: Access,
) -> Facts:
    found = connection.domain_capabilities(kind="qemu", machine=MACHINE_TYPE)
    program = emulator.of_libvirt(found)
    emulator.installed(emulator.QEMU_IMG)
    qemu_version = emulator.version_of(program)
    emulator.expect_version("libvirt", connection.library_version, emulator.LIBVIRT_FLOOR)
    emulator.expect_version("QEMU", qemu_version, emulator.QEMU_FLOOR)
    return Facts(
        uri=choice,
        accelerator=accelerator.choose(settings.accel, emulator=program, cache=cache, as_user=user),
        emulator=program,
        machine_type=found.findtext("machine") or MACHINE_TYPE,
        libvirt_version=connection.library_version,
        qemu_version=qemu_version,
        warnings=warnings(user, reach),
    )


def warnings(user: tuple[int, int] | None, reach: Access) -> tuple[str, ...]:
    """What is to be said of a host where machines run all the same; `user` is whom QEMU runs as."""
    kvm = Path("/dev/kvm")
    root_may = user and kvm.exists() and os.geteuid() == 0 and os.access(kvm, os.R_OK | os.W_OK)
    # Measured on libvirt 9.0: it compares the device as it sees it itself with what QEMU's user saw.
    if user and root_may and not reach.runs(["test", "-r", str(kvm), "-a", "-w", str(kvm)]):
        return (
            f"/dev/kvm opens for root and not for user {user[0]}, whom libvirt runs QEMU as: libvirt asks "
            "QEMU for its capabilities anew at each start, which takes a minute. Give that user access "
            "(sudo chmod 666 /dev/kvm), or use vmsnap_uri=qemu:///embed",
        )
    return ()
