"""Which accelerator runs the guests: design §12."""

from __future__ import annotations

import grp
import json
import logging
import os
import pwd
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_vmsnap.errors import AcceleratorError
from pytest_vmsnap.host import kvm_probe
from pytest_vmsnap.host.access import name_of

if TYPE_CHECKING:
    from pytest_vmsnap.host.kvm_probe import User
    from pytest_vmsnap.model import Accel

log = logging.getLogger("pytest_vmsnap.host")

DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CPUINFO = Path("/proc/cpuinfo")
RECORD = "accelerator.json"
AUTO_SECONDS = 2.0  # for the probe guest, which takes a tenth of a second where KVM works
ASKED_SECONDS = 30.0  # who asks for KVM may have a slow one (nested in an emulator)

NO_DEVICE = (
    "load the module (sudo modprobe kvm_intel, or kvm_amd), with virtualisation enabled in the firmware; "
    "in a virtual machine, its host must allow nested virtualisation; a container is given --device /dev/kvm"
)
JOIN_GROUP = """\
give it to the user for good, who then logs in again (for a daemon's user: restart the daemon):
    sudo usermod -aG {group} {user}
a container is started with the device's group:
    --device /dev/kvm --group-add $(stat -c %g /dev/kvm)"""
LOG_IN_AGAIN = """\
{user} is in the group {group}, but was not when this login began: log in again, or for one command:
    sg {group} -c 'COMMAND'"""
OPEN_TO_ALL = """\
give it to everybody, as hosted runners (GitHub Actions) need it in a step before the tests; of a container, \
on its host:
    echo 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"' \
| sudo tee /etc/udev/rules.d/99-kvm4all.rules
    sudo udevadm control --reload-rules; sudo udevadm trigger --name-match=kvm"""
NO_GUEST = (
    "a KVM that is not given the CPU's virtualisation cannot run an ordinary guest; in a virtual machine, its "
    "host must allow nested virtualisation"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What runs the guests: `name`, the `reason` for the choice, and where it is the slower one, a `hint`."""

    name: Literal["kvm", "tcg"]
    reason: str
    hint: str = ""


def choose(
    wanted: Accel, *, emulator: Path, cache: Path, as_user: User | None = None, anew: bool = False
) -> Accelerator:
    """The accelerator for `emulator` on this host.

    `wanted` is the option's value. `auto` gives KVM where the device opens for the user that QEMU runs as and
    a probe guest passes within 2 s, else TCG with the reason; what the probe found is kept in the directory
    `cache` until the host boots again, or its KVM or the emulator changes. `as_user` is the (uid, gid) that
    QEMU runs as, None for who we are; `anew` probes although it is known.

    Raises `AcceleratorError` where `kvm` is wanted and does not work.
    """
    if wanted == "tcg":
        return Accelerator(name="tcg", reason="asked for")
    record = _Record(cache, emulator)
    if wanted == "auto":
        return (
            refused(as_user)
            or _demoted(record)
            or (None if anew else _known(record))
            or _probed(record, AUTO_SECONDS, as_user)
        )
    found = refused(as_user) or _probed(record, ASKED_SECONDS, as_user)
    if found.name != "kvm":
        raise AcceleratorError(
            f"KVM was asked for and does not work here: {found.reason}",
            hint=f"{found.hint}\n(--vmsnap-accel=auto falls back to TCG, which is slower)",
        )
    return found


def demote(cache: Path, emulator: Path, reason: str) -> None:
    """Note that a guest's kernel died of KVM at its first boot: `auto` gives TCG until the host boots again.

    `reason` is what QEMU or the guest said of it.
    """
    _Record(cache, emulator).write("demoted", {"reason": reason})


def _tcg(reason: str, hint: str = "") -> Accelerator:
    return Accelerator(name="tcg", reason=reason, hint=hint)


def refused(as_user: User | None) -> Accelerator | None:
    """Why the device does not open for the user that QEMU runs as; None if it does."""
    try:
        device = DEVICE.stat()
    except OSError:
        return _tcg(f"{DEVICE} is missing", NO_DEVICE)
    if as_user is not None and as_user[0] != os.geteuid():
        opens = _opens_for(as_user) if os.geteuid() == 0 else _permits(device, as_user)
        return None if opens else _not_permitted(as_user[0])
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return _not_permitted(os.geteuid())
    except OSError as error:
        return _tcg(f"{DEVICE} does not open: {error.strerror}", NO_DEVICE)
    return None


def _not_permitted(uid: int) -> Accelerator:
    user = name_of(uid)
    return _tcg(f"no permission for {DEVICE} as user {user}", _permission_for(uid, user, DEVICE.stat()))


def _permission_for(uid: int, user: str, device: os.stat_result) -> str:
    """What gives `user` the device, by its group where that may open it."""
    needed = stat.S_IRGRP | stat.S_IWGRP
    if device.st_mode & needed != needed:
        return OPEN_TO_ALL
    joined = uid == os.geteuid() and device.st_gid in registered_groups(uid)
    by_group = (LOG_IN_AGAIN if joined else JOIN_GROUP).format(user=user, group=group_name(device.st_gid))
    return f"{by_group}\nor {OPEN_TO_ALL}"


def group_name(gid: int) -> str:
    """The name of the device's group: ``kvm`` where it has none, or is still root's."""
    try:
        return grp.getgrgid(gid).gr_name if gid else "kvm"
    except KeyError:
        return "kvm"


def registered_groups(uid: int) -> list[int]:
    """The groups of the user in the user database, which a login gets; those of a running one may be fewer."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return []
    return os.getgrouplist(entry.pw_name, entry.pw_gid)


def _opens_for(user: User) -> bool:
    """Whether a child process with the ids of `user` may open the device (test(1) asks faccessat(2))."""
    command = ["test", "-r", str(DEVICE), "-a", "-w", str(DEVICE)]
    return subprocess.run(command, check=False, **kvm_probe.identity(user)).returncode == 0


def _permits(device: os.stat_result, user: User) -> bool:
    """The same by owner, group and mode, for who cannot become that user."""
    uid, gid = user
    try:
        groups = os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        groups = [gid]
    if uid == device.st_uid:
        needed = stat.S_IRUSR | stat.S_IWUSR
    elif device.st_gid in groups:
        needed = stat.S_IRGRP | stat.S_IWGRP
    else:
        needed = stat.S_IROTH | stat.S_IWOTH
    return device.st_mode & needed == needed


def _demoted(record: _Record) -> Accelerator | None:
    found = record.read("demoted")
    if found is None:
        return None
    return _tcg(f"a guest died under KVM: {found['reason']}", f"to try again, remove {record.path}")


def _known(record: _Record) -> Accelerator | None:
    found = record.read("probed")
    return None if found is None else _verdict(found["passed"], found["reason"])


def _verdict(passed: bool, reason: str) -> Accelerator:
    if passed:
        return Accelerator(name="kvm", reason="a probe guest passed")
    return _tcg(f"{DEVICE} opens, but no guest runs: {reason}", NO_GUEST)


def _probed(record: _Record, timeout: float, as_user: User | None) -> Accelerator:
    """What a probe guest shows; kept, unless it may be otherwise the next time."""
    if as_user is not None and os.geteuid() not in (0, as_user[0]):
        return _unprobed()
    outcome = kvm_probe.probe(record.emulator, timeout=timeout, as_user=as_user)
    log.info("KVM's probe guest: %s", outcome)
    if not (outcome.timed_out and _cpu_has_virtualisation()):  # else the host may only have been busy
        record.write("probed", {"passed": outcome.passed, "reason": outcome.reason})
    return _verdict(outcome.passed, outcome.reason)


def _unprobed() -> Accelerator:
    """For who cannot become the user that QEMU runs as: what the CPU promises."""
    if _cpu_has_virtualisation():
        return Accelerator(name="kvm", reason="the CPU can; not probed, since QEMU is another user's")
    return _tcg(f"{DEVICE} is there, but the CPU shows neither vmx nor svm", NO_GUEST)


def _cpu_has_virtualisation() -> bool:
    return bool({"vmx", "svm"} & cpu_flags())


def cpu_flags() -> set[str]:
    """The processors' flags (proc(5), ``/proc/cpuinfo``)."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:  # hidden from us
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}


class _Record:
    """What is known of KVM with one emulator, for as long as host, KVM and emulator stay what they are."""

    def __init__(self, cache: Path, emulator: Path) -> None:
        self.path = cache / RECORD
        self.emulator = emulator

    def read(self, what: str) -> Any:
        """The entry, or None where there is none, or it holds no longer."""
        try:
            found = json.loads(self.path.read_text())
            return found[what] if found["of"] == self._of() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, what: str, entry: dict[str, Any]) -> None:
        """Set the entry; where the directory cannot be written to, it is found anew each time."""
        kept = {key: found for key in ("probed", "demoted") if (found := self.read(key))}
        try:
            text = json.dumps({**kept, what: entry, "of": self._of()}, indent=1)
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, draft = tempfile.mkstemp(dir=self.path.parent, prefix=f".{RECORD}.")
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            Path(draft).replace(self.path)
        except OSError as error:
            log.info("%s cannot be written: %s", self.path, error)

    def _of(self) -> list[Any]:
        """What the record is of. Loading KVM's modules makes the device anew, and changes its ctime."""
        emulator, device = self.emulator.stat(), DEVICE.stat()
        boot = BOOT_ID.read_text().strip()
        return [boot, device.st_ctime_ns, str(self.emulator), emulator.st_mtime_ns, emulator.st_size]
