"""Runs recipes in fresh Debian roots, with this project's wheel and this host's image.

The actions of a recipe that are not commands are done here: a checkout is a copy of the example, and what a
recipe caches of its store is taken from one job to the next.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from pytest_vmsnap import image
from pytest_vmsnap.host import choose_uri, default_store
from pytest_vmsnap.model import MachineSpec, Settings
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.states import image_request
from pytest_vmsnap.store import Store

from . import recipes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..documents import Command

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "example_project"
SUITE = "trixie"
# What a hosted runner has that a bare Debian has not: a user with sudo, a udev that runs.
INCLUDE = "ca-certificates,sudo,udev"
SETUP = (
    'chroot "$1" useradd --create-home --uid 1001 --shell /bin/bash runner',
    'echo "runner ALL=(ALL) NOPASSWD: ALL" >"$1/etc/sudoers.d/runner"',
)
# Of the example's image, and of the tutorial's.
PACKAGES = (("python3", "curl", "e2fsprogs", "nftables"), ())
# Of the example's tests: those that share a machine, one from the base state, and one from a state of its own.
SELECTION = "boot_on or as_root or second_brings or takes_the_notes_along or firewall"
# What podman gives a container; docker's has some more.
CAPABILITIES = "chown dac_override fowner fsetid kill net_bind_service setfcap setgid setpcap setuid sys_chroot"
# What apt and pip say of each package.
CHATTER = re.compile(
    r"(Get:|Selecting|Preparing to|Unpacking|Setting up|Processing|Created symlink|\(Reading|Adding|debconf: "
    r"|Removing 'diversion|Removing intermediate|invoke-rc.d|Creating (group|user)|update-alternatives"
    r"|Collecting| +(Downloading|Preparing|Getting|Installing|Building|Created|Stored)|Requirement already)"
)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "kvm")
JOBS = {
    "github": [("github", {"shard": 1}), ("github", {"shard": 2})],
    "gitlab": [("gitlab", {"shard": 1})],
    "container": [("container", {})],
    "tutorial": [("tutorial", {})],
}
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
number=0
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


def main(names: list[str]) -> int:
    cache = Path(
        os.environ.get("VMSNAP_RECIPES_CACHE") or platformdirs.user_cache_path("pytest-vmsnap-recipes")
    )
    base = base_root(cache)
    failed = []
    with tempfile.TemporaryDirectory(prefix="vmsnap-recipes-") as directory:
        work = Path(directory)
        wheels = work / "wheels"
        print("==> Making the wheel", flush=True)
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
        kept = work / "kept"
        start_of_cache(kept)
        for name in names or list(JOBS):
            for number, (recipe, shard) in enumerate(JOBS[name]):
                started = time.monotonic()
                title = " ".join([recipe, *(f"{key} {value}" for key, value in shard.items())])
                print(f"==> Recipe {title}", flush=True)
                try:
                    job(recipes.read(recipe, **shard), base, cache / "archives", wheels, kept, warm=number > 0)
                except Failed as error:
                    failed.append(f"{title}: {error}")
                print(f"==> Recipe {title}: {time.monotonic() - started:.0f} s", flush=True)
    for line in failed:
        print(f"failed: {line}")
    return int(bool(failed))


def job(recipe: recipes.Recipe, base: Path, debs: Path, wheels: Path, kept: Path, *, warm: bool) -> None:
    """Run `recipe` in a root of its own, and take from it what it keeps; raises `Failed`."""
    with fresh_root(base) as root, tempfile.TemporaryDirectory(prefix="vmsnap-recipe-") as directory:
        payload = Path(directory)
        project = root / recipe.project.lstrip("/")
        if not recipe.shown:  # who reads a tutorial begins with nothing
            checkout(project)
        restore(recipe, root, kept)
        owned = f"/home/{recipe.user}" if recipe.user != "root" else recipe.project
        subprocess.run(["chroot", root, "chown", "-R", f"{recipe.user}:", owned], check=True)
        write_steps(recipe, payload, wheels)
        output = enter(root, payload, debs)
        if "passed" not in output:
            raise Failed("its tests did not pass")
        compare(recipe.shown, output)
        if warm and "vmsnap: booting" in output:
            raise Failed("the store of the job before was of no use")
        for result in recipe.results:
            if result == "junit.xml" and not (project / result).exists():
                raise Failed(f"{result} is not there to be uploaded")
        keep(recipe, root, kept)


def compare(shown: list[Command], output: str) -> None:
    """Raise `Failed` where the output of a command is not what is shown of it, or it ended otherwise."""
    for number, command in enumerate(shown):
        mine = output.partition(recipes.BEGIN.format(number))[2].partition(recipes.END.format(number))
        if (line := command.missing_in(mine[0])) is not None:
            raise Failed(f"{command.text} did not print {line!r}")
        status = mine[2].split()[0]
        if (status != "0") != any("FAILED" in line for line in command.shown):
            raise Failed(f"{command.text} ended with status {status}")


def base_root(cache: Path) -> Path:
    """The root that the fresh ones are copied from, from the cache or made."""
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
def fresh_root(base: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vmsnap-root-") as directory:
        root = Path(directory) / "root"
        subprocess.run(["cp", "-a", "--reflink=auto", base, root], check=True)
        yield root


def checkout(project: Path) -> None:
    """The example's files, as git has them."""
    project.mkdir(parents=True, exist_ok=True)
    git = [
        "git",
        "-c",
        f"safe.directory={ROOT}",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        ".",
    ]
    names = subprocess.run(git, cwd=EXAMPLE, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(EXAMPLE / name, project / name)


def start_of_cache(kept: Path) -> None:
    """What an earlier run may have left in the cache: the images, for their building is tested elsewhere."""
    progress = Progress(lambda line: print(f"   {line}", flush=True))
    place = os.environ.get("VMSNAP_STORE")
    store = Store(Path(place) if place else default_store(choose_uri(Settings(root=ROOT))), progress=progress)
    for packages in PACKAGES:
        spec = MachineSpec(image=f"debian:{SUITE}", packages=packages)
        found = image.provide(image_request(spec, root=ROOT), store=store, progress=progress)
        assert found.disk
        entry = found.disk.parent
        shutil.copytree(entry, kept / "images" / entry.name)


def restore(recipe: recipes.Recipe, root: Path, kept: Path) -> None:
    """What was kept, where the recipe has its store."""
    by_default = f"/home/{recipe.user}/.cache/pytest-vmsnap"
    place = root / recipe.environment.get("VMSNAP_STORE", by_default).lstrip("/")
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    subprocess.run(["cp", "-a", f"{kept}/.", place], check=True)


def keep(recipe: recipes.Recipe, root: Path, kept: Path) -> None:
    """Only what the recipe says is kept for the next job, by tar, as runners do."""
    paths = [path for path in recipe.store if (root / recipe.project.lstrip("/") / path).exists()]
    if not paths:
        return
    store = Path(recipe.environment["VMSNAP_STORE"]).name
    shutil.rmtree(kept)
    kept.mkdir()
    with tempfile.TemporaryFile() as archive:
        place = root / recipe.project.lstrip("/")
        subprocess.run(["tar", "--posix", "--create", "--directory", place, *paths], stdout=archive, check=True)
        archive.seek(0)
        strip = [f"--transform=s,^{store}/,,"]
        subprocess.run(["tar", "--extract", "--directory", kept, *strip], stdin=archive, check=True)


def write_steps(recipe: recipes.Recipe, payload: Path, wheels: Path) -> None:
    """The steps as files, which a job runs in the order of their names."""
    (payload / "steps").mkdir()
    shutil.copytree(wheels, payload / "wheels")
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
    }
    if not recipe.shown:
        environment["PYTEST_ADDOPTS"] = f"-k '{SELECTION}'"
    if recipe.user != "root":
        environment["XDG_RUNTIME_DIR"] = "/run/user/1001"
    setting = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    for number, step in enumerate(recipe.steps):
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


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is entered is left
    sys.exit(main(sys.argv[1:]))
