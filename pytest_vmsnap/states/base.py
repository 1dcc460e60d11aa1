"""The base state: the boot, and the project's own preparation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vmsnap.errors import BootError, ChannelError, GuestGone, StateFailed
from pytest_vmsnap.fork import Template
from pytest_vmsnap.guest import AgentChannel, Request
from pytest_vmsnap.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vmsnap.fork import Forge, Snapshot
    from pytest_vmsnap.machine import Deadlines
    from pytest_vmsnap.model import Image, MachineSpec
    from pytest_vmsnap.progress import Progress

BASE = "base"
BOOT_SECONDS = 120.0
# what QEMU says of a guest that this host's KVM cannot run
KVM_DEATHS = (
    "KVM internal error",
    "KVM: entry failed",
    "emulation failure",
    "kvm_vcpu_ioctl",
    "kvm_buf_set_msrs",
)


# `--wait` since systemd 240; units that failed are the image's affair
SETTLE = """
if command -v systemctl; then systemctl is-system-running --wait; fi
if command -v udevadm; then udevadm settle; fi
true
"""


class DiedOfKvm(BootError):
    """The guest's kernel did not survive this host's KVM."""


def build_base(
    forge: Forge,
    *,
    spec: MachineSpec,
    image: Image,
    prepare: Callable[[Machine], None],
    deadlines: Deadlines,
    progress: Progress,
) -> Snapshot:
    """Boot a machine, let `prepare` do its work on it, and save it.

    Raises `BootError` with the console where the guest does not come up (`DiedOfKvm` where KVM is at fault),
    `StateFailed` where the preparation fails.
    """
    with Template(forge, spec=spec, image=image) as template:
        channel = AgentChannel(lambda: template.domain)
        with progress.step(f"booting {image.origin} ({forge.host.facts.accelerator.name})"):
            _boot(template, channel, deadlines)
            _settle(channel, deadlines)
        machine = Machine(template, channel, spec=spec, state=BASE, deadlines=deadlines)
        with progress.step("preparing the base state"):
            _prepare(machine, prepare)
        machine.succeed("sync")
        machine.release("the preparation of the base state")
        with progress.step("saving the base state"):
            return template.save()


def _boot(template: Template, channel: AgentChannel, deadlines: Deadlines) -> None:
    seconds = BOOT_SECONDS * deadlines.factor
    try:
        channel.open(timeout=seconds)
    except ChannelError as error:
        log = template.log()
        if any(words in log for words in KVM_DEATHS):
            raise DiedOfKvm("the guest's kernel died of this host's KVM", log=log) from error
        gone = isinstance(error, GuestGone)
        what = "the guest ended while it booted" if gone else f"the guest did not answer within {seconds:.0f} s"
        raise BootError(
            what,
            hint="the image needs qemu-guest-agent, installed and enabled" if not gone else "",
            console=template.domain.console_text(),
            log=log,
        ) from error


def _settle(channel: AgentChannel, deadlines: Deadlines) -> None:
    """Let the boot come to its end: what is unfinished at the save goes on in every clone, within a test."""
    channel.run(Request(text=SETTLE), timeout=BOOT_SECONDS * deadlines.factor)


def _prepare(machine: Machine, prepare: Callable[[Machine], None]) -> None:
    try:
        prepare(machine)
    except Exception as error:
        machine.release("the preparation of the base state")
        raise StateFailed(
            f"the preparation of the base state failed: {type(error).__name__}: {error}"
        ) from error
