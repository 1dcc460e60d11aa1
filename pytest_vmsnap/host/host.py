"""The host during one run: its facts, its libvirt, the run's directories, and what QEMU may access."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

from pytest_vmsnap.errors import StoreFull
from pytest_vmsnap.host import accelerator
from pytest_vmsnap.host.domain_xml import SECURE_MACHINE_TYPE
from pytest_vmsnap.host.file_copy import copy_file
from pytest_vmsnap.host.processes import end_qemus
from pytest_vmsnap.host.run_directory import libvirt_logs

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from pytest_vmsnap.host.facts import Facts
    from pytest_vmsnap.host.libvirt import Connection
    from pytest_vmsnap.host.permissions import Permissions
    from pytest_vmsnap.host.run_directory import Run
    from pytest_vmsnap.model import Firmware

log = logging.getLogger("pytest_vmsnap.host")

COPIES = "copies"  # of the user's files, in the store
SPARE_MIB = 256  # for overlays, consoles and device states, in addition to the memory
MORE_ROOM = "free some space, or choose another directory with --vmsnap-store"  # a hint if the disk is full


class Host:
    """The host during one run: facts, connection, the run's directories, and what QEMU may access.

    `open_host` makes it; `close` ends every machine of the run and removes the run's files.
    """

    def __init__(
        self,
        *,
        facts: Facts,
        connection: Connection,
        run: Run,
        permissions: Permissions,
        unconfined: tuple[str, ...],
        stack: ExitStack,
        store: Path,
    ) -> None:
        self.facts = facts
        self.connection = connection
        self.run = run
        self.permissions = permissions
        self.unconfined = unconfined  # security models off for our domains: they do not know the memory file
        self._stack = stack
        self._store = store

    def machine_type(self, firmware: Firmware) -> str:
        """QEMU's machine type, with its version, for machines with `firmware`."""
        return self._secure_machine_type if firmware == "uefi-secure" else self.facts.machine_type

    @cached_property
    def _secure_machine_type(self) -> str:
        found = self.connection.domain_capabilities(kind="qemu", machine=SECURE_MACHINE_TYPE)
        return found.findtext("machine") or SECURE_MACHINE_TYPE

    @property
    def log_directory(self) -> Path:
        """The directory of QEMU's own output, with a file for each domain (libvirt.org, "QEMU driver")."""
        logs = libvirt_logs()
        return {**logs, "embed": self.run.sockets / "log" / "qemu"}[self.facts.uri.mode]

    def allow_search_to(self, path: Path) -> None:
        """Let QEMU pass through the directories of the store that lead to `path`."""
        for parent in [parent for parent in path.parents if parent.is_relative_to(self._store)]:
            self.permissions.allow_search(parent)

    def is_in_store(self, path: Path) -> bool:
        """Whether the file `path` is one of the store's."""
        return path.is_relative_to(self._store)

    def reachable(self, path: Path) -> Path:
        """Return `path`, or a copy of it in the store if QEMU cannot read the file.

        Files in the store become readable for QEMU; a user's file keeps its owner and mode.
        """
        if self.permissions.user is None:
            return path
        if self.is_in_store(path):
            self.allow_search_to(path)
            self.permissions.allow_read(path)
            return path
        if self.permissions.can_read(path):
            return path
        found = path.stat()
        copy = self._store / COPIES / f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}" / path.name
        if not copy.exists():
            log.info("QEMU's user cannot read %s: copied", path)
            draft = self.run.data / copy.parent.name
            draft.mkdir(mode=0o700)
            copy_file(path, draft / path.name)
            with suppress(OSError):  # another run was faster
                draft.rename(copy.parent)
        return self.reachable(copy)

    def expect_space(self, memory_mib: int) -> None:
        """Raise `StoreFull` if the store has no room for `memory_mib` MiB of memory: QEMU would die later."""
        free = shutil.disk_usage(self.run.data).free >> 20
        if free < space_for(memory_mib):
            raise StoreFull(
                f"{self._store} has {free} MiB free; a machine of {memory_mib} MiB needs "
                f"{space_for(memory_mib)} MiB there for its memory",
                hint=MORE_ROOM,
            )

    def demote(self, reason: str) -> None:
        """Use software emulation in this run and later ones: KVM does not run a real guest here."""
        accelerator.demote(self._store, self.facts.emulator, reason)
        self.facts = replace(self.facts, accelerator=accelerator.Accelerator(name="tcg", reason=reason))

    def kill_machines(self) -> None:
        """Kill every QEMU of this run directly: a QEMU that hangs does not answer libvirt."""
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
    """How many MiB in the store a machine with `memory_mib` MiB of memory may need."""
    return memory_mib + SPARE_MIB
