"""The base state: boot a machine, and let the project prepare it."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import BootError, ChannelError, GuestGone, StateFailed
from pytest_vmsnap.fork import Template
from pytest_vmsnap.guest import additions, mount_modules, reseeder_of, seed_image, settle, stop_calendar_timers
from pytest_vmsnap.machine import History, Machine
from pytest_vmsnap.model import ImageRequest
from pytest_vmsnap.states.preparation import observed, run_preparation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap.fork import DomainFactory, Snapshot
    from pytest_vmsnap.guest import Channel, ChannelFactory
    from pytest_vmsnap.machine import Deadlines
    from pytest_vmsnap.model import Entropy, Image, MachineSpec, Reseeder
    from pytest_vmsnap.progress import Progress

log = logging.getLogger("pytest_vmsnap.states")

BASE = "base"
BOOT_SECONDS = 120.0
# what QEMU prints if this host's KVM cannot run the guest
KVM_DEATHS = (
    "KVM internal error",
    "KVM: entry failed",
    "emulation failure",
    "kvm_vcpu_ioctl",
    "kvm_buf_set_msrs",
)


def image_request(spec: MachineSpec, *, root: Path, mirror: str | None = None) -> ImageRequest:
    """The image that a machine of `spec` needs; relative paths are relative to `root`.

    `mirror` has the vendors' images, None for their own servers.
    """
    return ImageRequest(
        image=spec.image,
        root=root,
        sha256=spec.image_sha256,
        packages=spec.packages,
        kernel=spec.kernel,
        initrd=spec.initrd,
        cmdline=spec.cmdline,
        modules=spec.modules,
        firmware=spec.firmware,
        mirror=mirror,
        additions=additions(),
    )


class KvmCannotRunGuest(BootError):
    """This host's KVM cannot run the guest's kernel."""


class QemuFailed(BootError):
    """QEMU crashed, or was killed, while the guest booted; the guest may boot the next time."""


def build_base(
    factory: DomainFactory,
    *,
    spec: MachineSpec,
    image: Image,
    prepare: Callable[[Machine], object],
    channel_factory: ChannelFactory,
    deadlines: Deadlines,
    entropy: Entropy,
    progress: Progress,
    into: Path,
    observe: Callable[[History], None],
) -> Snapshot:
    """Boot a machine, call `prepare` with it, and save it in the directory `into`.

    If that fails, `observe` is called with the machine's history before the machine ends. Raises `BootError`
    with the console if the guest does not boot (`KvmCannotRunGuest` if KVM is the cause, `QemuFailed` if QEMU
    is), `StateFailed` if `prepare` fails.
    """
    with ExitStack() as stack:
        script = channel_factory.seed(image)
        seed = partial(seed_image, script=script, instance=factory.host.run.id) if script else None
        template = stack.enter_context(Template(factory, spec=spec, image=image, seed=seed, into=into))
        channel = stack.enter_context(closing(channel_factory.channel_to(template, image)))
        history = History(f"state {BASE}")
        history.follow(template, None, from_power_on=True)
        stack.enter_context(observed(history, observe))
        with progress.step(f"booting {image.origin} ({factory.host.facts.accelerator.name})") as step:
            step.follow(lambda: template.domain.console_line())
            _boot(template, channel, deadlines)
            if image.modules:
                mount_modules(channel, image.modules_release, timeout=BOOT_SECONDS * deadlines.factor)
            reseeder = _reseeder(channel, deadlines, entropy, progress)
        history.channel = channel  # only now, because the guest answers
        machine = Machine(
            template,
            channel,
            spec=spec,
            state=BASE,
            deadlines=deadlines,
            ssh_login=channel_factory.ssh,
            history=history,
            progress=progress,
        )
        run_preparation(machine, prepare, progress)
        with progress.step("saving the base state"):
            notes = channel.notes(reseeder, timeout=BOOT_SECONDS * deadlines.factor)
            return template.save(guest=notes)


def _boot(template: Template, channel: Channel, deadlines: Deadlines) -> None:
    seconds = BOOT_SECONDS * deadlines.factor
    try:
        channel.open(timeout=seconds)
        settle(channel, template.domain, timeout=seconds)
        if stopped := stop_calendar_timers(channel, timeout=seconds):
            log.info("stopped before the save: %s", ", ".join(stopped))
    except ChannelError as error:
        said = template.log()
        if any(words in said for words in KVM_DEATHS):
            raise KvmCannotRunGuest("this host's KVM cannot run the guest's kernel", log=said) from error
        kind, what = BootError, f"the guest did not boot: {error.message}"
        if isinstance(error, GuestGone):
            template.domain.events.wait_for_end()
            kind, what = BootError, "the guest shut down while it booted"
            if template.domain.events.qemu_failed:
                kind, what = QemuFailed, "QEMU crashed, or was killed, while the guest booted"
        raise kind(what, console=template.domain.console_text(), log=said) from error


def _reseeder(channel: Channel, deadlines: Deadlines, entropy: Entropy, progress: Progress) -> Reseeder:
    found = reseeder_of(channel, timeout=BOOT_SECONDS * deadlines.factor)
    if entropy == "require":  # else the warning comes with each snapshot that is used
        check_entropy(found, entropy, progress)
    return found


def check_entropy(reseeder: Reseeder, entropy: Entropy, progress: Progress) -> None:
    """Warn if machines of a state draw the same random numbers; raise `StateFailed` if `entropy` is require."""
    if reseeder == "nothing":
        trouble = "machines of this state would all draw the same random numbers"
        if entropy == "require":
            raise StateFailed(
                trouble,
                hint="the guest needs a kernel with VM generation IDs (Linux 5.18, CONFIG_VMGENID), or perl or "
                "python3; set vmsnap_entropy=warn to accept this",
            )
        progress.say(f"warning: {trouble}")
