"""The choice of the accelerator that runs the guests."""

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
from pytest_vmsnap.host.permissions import name_of

if TYPE_CHECKING:
    from pytest_vmsnap.host.kvm_probe import User
    from pytest_vmsnap.model import Accel

log = logging.getLogger("pytest_vmsnap.host")

DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CPUINFO = Path("/proc/cpuinfo")
RECORD = "accelerator.json"
AUTO_SECONDS = 2.0  # for the probe guest, which takes 0.1 s if KVM works
ASKED_SECONDS = 30.0  # with vmsnap_accel=kvm: KVM may be slow (nested in an emulator)

NO_DEVICE = (
    "load the module (sudo modprobe kvm_intel, or kvm_amd), and enable virtualisation in the firmware; in a "
    "virtual machine, enable nested virtualisation on its host; start a container with --device /dev/kvm"
)
JOIN_GROUP = """\
add the user to the device's group, then log in again (for a daemon's user, restart the daemon):
    sudo usermod -aG {group} {user}
start a container with the device and its group:
    --device /dev/kvm --group-add $(stat -c %g /dev/kvm)"""
LOG_IN_AGAIN = """\
{user} is in the group {group}, but was not when this login began: log in again, or for one command:
    sg {group} -c 'COMMAND'"""
OPEN_TO_ALL = """\
give everybody access (on hosted runners such as GitHub Actions, in a step before the tests; for a container, \
on its host):
    echo 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"' \
| sudo tee /etc/udev/rules.d/99-kvm4all.rules
    sudo udevadm control --reload-rules; sudo udevadm trigger --name-match=kvm"""
NO_GUEST = (
    "KVM needs the CPU's virtualisation to run an ordinary guest; in a virtual machine, enable nested "
    "virtualisation on its host"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What runs the guests: `name`, the `reason` for the choice, and a `hint` if KVM does not work."""

    name: Literal["kvm", "tcg"]
    reason: str
    hint: str = ""


def choose(
    wanted: Accel, *, emulator: Path, cache: Path, as_user: User | None = None, force_probe: bool = False
) -> Accelerator:
    """Choose the accelerator for `emulator` on this host.

    `wanted` is the option's value. `auto` returns KVM if the device opens for the user that QEMU runs as and
    a probe guest passes within 2 s, else TCG with the reason. The directory `cache` keeps the result of the
    probe until the host reboots, or its KVM or the emulator changes. `as_user` is the (uid, gid) that QEMU runs
    as, None for the current user; `force_probe` probes even if a result is kept.

    Raises `AcceleratorError` if `kvm` is wanted and does not work.
    """
    if wanted == "tcg":
        return Accelerator(name="tcg", reason="requested")
    record = _Record(cache, emulator)
    if wanted == "auto":
        return (
            access_problem(as_user)
            or _demoted(record)
            or (None if force_probe else _known(record))
            or _probed(record, AUTO_SECONDS, as_user)
        )
    found = access_problem(as_user) or _probed(record, ASKED_SECONDS, as_user)
    if found.name != "kvm":
        raise AcceleratorError(
            f"KVM was requested, but does not work on this host: {found.reason}",
            hint=f"{found.hint}\n(--vmsnap-accel=auto falls back to TCG, which is slower)",
        )
    return found


def demote(cache: Path, emulator: Path, reason: str) -> None:
    """Record that a guest's kernel died under KVM at its first boot: `auto` returns TCG until the host reboots.

    `reason` is what QEMU or the guest reported.
    """
    _Record(cache, emulator).write("demoted", {"reason": reason})


def _tcg(reason: str, hint: str = "") -> Accelerator:
    return Accelerator(name="tcg", reason=reason, hint=hint)


def access_problem(as_user: User | None) -> Accelerator | None:
    """Return TCG with the reason if the device does not open for the user that QEMU runs as, else None."""
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
    """How to give `user` access to the device: through its group, if the group may open it."""
    needed = stat.S_IRGRP | stat.S_IWGRP
    if device.st_mode & needed != needed:
        return OPEN_TO_ALL
    joined = uid == os.geteuid() and device.st_gid in registered_groups(uid)
    by_group = (LOG_IN_AGAIN if joined else JOIN_GROUP).format(user=user, group=group_name(device.st_gid))
    return f"{by_group}\nor {OPEN_TO_ALL}"


def group_name(gid: int) -> str:
    """The name of the device's group; ``kvm`` if the group has no name, or is still root's."""
    try:
        return grp.getgrgid(gid).gr_name if gid else "kvm"
    except KeyError:
        return "kvm"


def registered_groups(uid: int) -> list[int]:
    """The user's groups in the user database, which a new login gets; a running login may have fewer."""
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
    """Check the same by owner, group and mode, because only root can become that user."""
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
    """Run a probe guest and record the result, unless the next probe may differ."""
    if as_user is not None and os.geteuid() not in (0, as_user[0]):
        return _unprobed()
    outcome = kvm_probe.probe(record.emulator, timeout=timeout, as_user=as_user)
    log.info("KVM's probe guest: %s", outcome)
    if not (outcome.timed_out and _cpu_has_virtualisation()):  # then a timeout may mean a busy host
        record.write("probed", {"passed": outcome.passed, "reason": outcome.reason})
    return _verdict(outcome.passed, outcome.reason)


def _unprobed() -> Accelerator:
    """Judge by the CPU alone, because only root can become the user that QEMU runs as."""
    if _cpu_has_virtualisation():
        return Accelerator(name="kvm", reason="the CPU supports it; not probed: QEMU runs as another user")
    return _tcg(f"{DEVICE} exists, but the CPU has neither vmx nor svm", NO_GUEST)


def _cpu_has_virtualisation() -> bool:
    return bool({"vmx", "svm"} & cpu_flags())


def cpu_flags() -> set[str]:
    """The processors' flags (proc(5), ``/proc/cpuinfo``); empty if they cannot be read."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:  # hidden from us
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}


class _Record:
    """What is known about KVM with one emulator: valid until the host reboots, or KVM or emulator changes."""

    def __init__(self, cache: Path, emulator: Path) -> None:
        self.path = cache / RECORD
        self.emulator = emulator

    def read(self, what: str) -> Any:
        """The entry, or None if there is none or it is outdated."""
        try:
            found = json.loads(self.path.read_text())
            return found[what] if found["of"] == self._of() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, what: str, entry: dict[str, Any]) -> None:
        """Set the entry; if the directory is not writable, nothing is kept and every run probes again."""
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
        """What the record applies to. Loading KVM's modules recreates the device, which changes its ctime."""
        emulator, device = self.emulator.stat(), DEVICE.stat()
        boot = BOOT_ID.read_text().strip()
        return [boot, device.st_ctime_ns, str(self.emulator), emulator.st_mtime_ns, emulator.st_size]
