"""The base state: the boot, and the project's own preparation."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import BootError, ChannelError, GuestGone, StateFailed
from pytest_vmsnap.fork import Template
from pytest_vmsnap.guest import additions, reseeder_of, seed_image, settle, stop_calendar_timers
from pytest_vmsnap.machine import Machine, Trail
from pytest_vmsnap.model import ImageRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_vmsnap.fork import Forge, Snapshot
    from pytest_vmsnap.guest import Access, Channel
    from pytest_vmsnap.machine import Deadlines
    from pytest_vmsnap.model import Entropy, Image, MachineSpec, Reseeder
    from pytest_vmsnap.progress import Progress

log = logging.getLogger("pytest_vmsnap.states")

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


def image_request(spec: MachineSpec, *, root: Path) -> ImageRequest:
    """The image that a machine of `spec` needs; relative paths are relative to `root`."""
    return ImageRequest(
        image=spec.image,
        root=root,
        sha256=spec.image_sha256,
        packages=spec.packages,
        kernel=spec.kernel,
        initrd=spec.initrd,
        cmdline=spec.cmdline,
        additions=additions(),
    )


class DiedOfKvm(BootError):
    """The guest's kernel did not survive this host's KVM."""


def build_base(
    forge: Forge,
    *,
    spec: MachineSpec,
    image: Image,
    prepare: Callable[[Machine], None],
    access: Access,
    deadlines: Deadlines,
    entropy: Entropy,
    progress: Progress,
    into: Path,
    observe: Callable[[Trail], None],
) -> Snapshot:
    """Boot a machine, let `prepare` do its work on it, and save it in the directory `into`.

    Where that fails, `observe` is called with the machine as it is then. Raises `BootError` with the console
    where the guest does not come up (`DiedOfKvm` where KVM is at fault), `StateFailed` where the preparation
    fails.
    """
    with ExitStack() as stack:
        script = access.seed(image)
        seed = partial(seed_image, script=script, instance=forge.host.run.id) if script else None
        template = stack.enter_context(Template(forge, spec=spec, image=image, seed=seed, into=into))
        channel = stack.enter_context(closing(access.channel_to(template, image)))
        trail = Trail(f"state {BASE}")
        trail.follow(template, None, from_power_on=True)
        stack.enter_context(observed(trail, observe))
        with progress.step(f"booting {image.origin} ({forge.host.facts.accelerator.name})"):
            _boot(template, channel, deadlines)
            reseeder = _reseeder(channel, deadlines, entropy, progress)
        trail.channel = channel  # it answers
        machine = Machine(
            template,
            channel,
            spec=spec,
            state=BASE,
            deadlines=deadlines,
            ssh_login=access.ssh,
            trail=trail,
            progress=progress,
        )
        prepared(machine, prepare, progress)
        with progress.step("saving the base state"):
            notes = channel.notes(reseeder, timeout=BOOT_SECONDS * deadlines.factor)
            return template.save(guest=notes)


@contextmanager
def observed(trail: Trail, observe: Callable[[Trail], None]) -> Iterator[None]:
    """Have a machine looked at before it ends, where the body raises."""
    try:
        yield
    except Exception:
        observe(trail)
        raise


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
            raise DiedOfKvm("the guest's kernel died of this host's KVM", log=said) from error
        gone = isinstance(error, GuestGone)
        what = f"the guest did not come up ({seconds:.0f} s): {error.message}"
        raise BootError(
            "the guest ended while it booted" if gone else what,
            console=template.domain.console_text(),
            log=said,
        ) from error


def _reseeder(channel: Channel, deadlines: Deadlines, entropy: Entropy, progress: Progress) -> Reseeder:
    found = reseeder_of(channel, timeout=BOOT_SECONDS * deadlines.factor)
    if entropy == "require":  # what is accepted is said of each snapshot that is used
        accept_repeats(found, entropy, progress)
    return found


def accept_repeats(reseeder: Reseeder, entropy: Entropy, progress: Progress) -> None:
    """Say it where machines draw the same random numbers; raise `StateFailed` where nobody accepts that."""
    if reseeder == "nothing":
        trouble = "machines of this state would all draw the same random numbers"
        if entropy == "require":
            raise StateFailed(
                trouble,
                hint="the guest needs a kernel with VM generation IDs (Linux 5.18, CONFIG_VMGENID), or perl or "
                "python3; vmsnap_entropy=warn accepts it as it is",
            )
        progress.say(f"warning: {trouble}")


def prepared(machine: Machine, prepare: Callable[[Machine], object], progress: Progress) -> None:
    """Let `prepare` do its work on a machine that is saved then.

    Raises `StateFailed`, from the error itself, where it fails.
    """
    what = f"the preparation of the state {machine.state}"
    with progress.step(f"preparing the state {machine.state}"):
        try:
            prepare(machine)
            machine.succeed("sync")
        except Exception as error:
            raise StateFailed(f"{what} failed: {type(error).__name__}: {error}") from error
        finally:
            machine.release(what)
