"""Fresh Debian roots, and what is run in them: a recipe's steps, in namespaces of their own."""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .recipes import Recipe, Step

SUITE = "trixie"
# What a hosted runner has that a bare Debian has not: a user with sudo, a udev that runs.
INCLUDE = "ca-certificates,sudo,udev"
SETUP = (
    'echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/unsafe-io"',  # no root outlives its job
    'chroot "$1" useradd --create-home --uid 1001 --shell /bin/bash runner',
    'echo "runner ALL=(ALL) NOPASSWD: ALL" >"$1/etc/sudoers.d/runner"',
)
# What podman gives a container; docker's has some more.
CAPABILITIES = "chown dac_override fowner fsetid kill net_bind_service setfcap setgid setpcap setuid sys_chroot"
# What apt and pip say of each package.
CHATTER = re.compile(
    r"(Get:|Selecting|Preparing to|Unpacking|Setting up|Processing|Created symlink|\(Reading|Adding|debconf: "
    r"|Removing 'diversion|Removing intermediate|invoke-rc.d|Creating (group|user)|update-alternatives"
    r"|Collecting| +(Downloading|Preparing|Getting|Installing|Building|Created|Stored)|Requirement already)"
)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "kvm")
# The namespaces of a job: its mounts and processes end with it. udev has a network of its own, for it must not
# rename this host's interfaces.
ENTER = """
root=$1 payload=$2 debs=$3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=0755 dev "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
for name in DEVICES; do
    [ -e "/dev/$name" ] || continue
    mknod -m "$(stat -c %a "/dev/$name")" "$root/dev/$name" c $(stat -c '0x%t 0x%T' "/dev/$name")
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=0755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mkdir -p "$root/payload" "$root/run/user/1001" "$root/run/lock"
mount --bind "$payload" "$root/payload"
mkdir -p "$root/var/cache/apt/archives/partial"
mount --bind "$debs" "$root/var/cache/apt/archives"
chown 1001:1001 "$root/run/user/1001"
chmod 700 "$root/run/user/1001"
cp /etc/resolv.conf "$root/etc/resolv.conf"
echo "127.0.0.1 localhost $(hostname)" >"$root/etc/hosts"
exec chroot "$root" /bin/bash /payload/go
"""
GO = """
unshare --net /usr/lib/systemd/systemd-udevd --daemon
for step in /payload/steps/*; do
    echo "==> $(head -n 1 "$step" | cut -c 3-)"
    start=$(date +%s)
    if ! BEFORE /bin/bash "$step"; then
        echo "==> failed"
        exit 1
    fi
    echo "==> $(($(date +%s) - start)) s"
done
"""


class Failed(Exception):
    """A recipe did not do what it says."""


def base_root(cache: Path) -> Path:
    """The root that all others have below them, from the cache or made."""
    place = cache / SUITE
    (cache / "archives").mkdir(parents=True, exist_ok=True)
    if not place.exists():
        print(f"==> Making a root of {SUITE}", flush=True)
        new = cache / f"{SUITE}.new"
        shutil.rmtree(new, ignore_errors=True)
        hooks = [f"--customize-hook={line}" for line in SETUP]
        valid = '--aptopt=Acquire::Check-Valid-Until "false"'  # a mirror that is not fed any more
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={INCLUDE}", valid, *hooks, SUITE, new],
            check=True,
        )
        new.rename(place)
    return place


@contextlib.contextmanager
def root_over(below: Sequence[Path], top: Path) -> Iterator[Path]:
    """A root with what `below` has, the uppermost first; what is written to it goes to `top`, another layer."""
    top.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vmsnap-root-", dir=top.parent) as directory:
        root, work = Path(directory, "root"), Path(directory, "work")
        root.mkdir()
        work.mkdir()
        layers = f"lowerdir={':'.join(map(str, below))},upperdir={top},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, root], check=True)
        try:
            yield root
        finally:
            subprocess.run(["umount", root], check=True)


def write_steps(recipe: Recipe, steps: Sequence[Step], payload: Path, wheels: Path, **further: str) -> None:
    """Write `steps` of `recipe` as files, which `enter` runs in order; `further` is environment of theirs."""
    shutil.rmtree(payload / "steps", ignore_errors=True)
    (payload / "steps").mkdir()
    shutil.copytree(wheels, payload / "wheels", dirs_exist_ok=True)
    home = "/root" if recipe.user == "root" else f"/home/{recipe.user}"
    environment = {
        "CI": "true",
        "HOME": home,
        "USER": recipe.user,
        "LOGNAME": recipe.user,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PIP_FIND_LINKS": "/payload/wheels",
        "PIP_ROOT_USER_ACTION": "ignore",
        **index(),
        **recipe.environment,
        **further,
    }
    if recipe.user != "root":
        environment["XDG_RUNTIME_DIR"] = "/run/user/1001"
    setting = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    for number, step in enumerate(steps):
        lines = [f"# {step.name}", *setting, f"cd {shlex.quote(step.cwd or recipe.project)}", step.script]
        (payload / "steps" / f"{number:02}").write_text("\n".join(lines) + "\n")
    before = f"runuser -u {recipe.user} --"
    if recipe.confined:
        kept = ",".join(["-all", *(f"+{name}" for name in CAPABILITIES.split())])
        before = f"setpriv --inh-caps={kept} --bounding-set={kept}"
    (payload / "go").write_text(GO.replace("BEFORE", before))
    subprocess.run(["chmod", "-R", "a+rX", payload], check=True)


def index() -> dict[str, str]:
    """Where this host's pip looks, but for its own files, and by which certificates."""
    found = {}
    for name in ("index-url", "extra-index-url", "trusted-host"):
        done = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", f"global.{name}"], capture_output=True, text=True
        )
        words = [word for word in done.stdout.split() if not word.startswith("file:")]
        if words:
            found[f"PIP_{name.upper().replace('-', '_')}"] = " ".join(words)
    return found


def enter(root: Path, payload: Path, debs: Path) -> str:
    """Run the steps, show what they print, and return it; raises `Failed` where one fails."""
    authorities = Path("/etc/ssl/certs/ca-certificates.crt")
    if authorities.exists():
        shutil.copy(authorities, root / authorities.relative_to("/"))
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    script = ENTER.replace("DEVICES", " ".join(DEVICES))
    command = [*unshare, "sh", "-euc", script, "sh", str(root), str(payload), str(debs)]
    shown = []
    clean = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    with subprocess.Popen(
        command, env=clean, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        assert running.stdout
        try:
            for line in running.stdout:
                shown.append(line)
                if not CHATTER.match(line):
                    print(line, end="", flush=True)
        finally:
            running.kill()  # all of its namespace with it; nothing where it has ended
    if running.returncode:
        print("".join(line for line in shown if CHATTER.match(line)))
        raise Failed(f"a step failed with status {running.returncode}")
    return "".join(shown)
