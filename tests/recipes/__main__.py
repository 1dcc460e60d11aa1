"""Runs recipes in fresh Debian roots, with this project's wheel and this host's image.

The actions of a recipe that are not commands are done here: a checkout is a copy of the example, and what a
recipe caches of its store is taken from one job to the next.
"""

# ruff: noqa: T201 - a script's output is printed

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from pytest_vmsnap import image
from pytest_vmsnap.host import choose_uri, default_store
from pytest_vmsnap.model import MachineSpec, Settings
from pytest_vmsnap.progress import Progress
from pytest_vmsnap.states import image_request
from pytest_vmsnap.store import Store

from ..registry_server import RegistryServer, auth_file, serving
from . import recipes
from .root import SUITE, Failed, base_root, enter, root_over, write_steps

if TYPE_CHECKING:
    from ..documents import Command

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "example_project"
# Of the example's image, and of the tutorial's.
PACKAGES = (("python3", "curl", "e2fsprogs", "nftables"), ())
# Of the example's tests: those that share a machine, one from the base state, and one from a state of its own.
SELECTION = "boot_on or as_root or second_brings or takes_the_notes_along or firewall"
BUILT = re.compile(r"vmsnap: (?:booting|building|preparing)")
# The first of each begins with the image, and those after it with what the one before has kept.
JOBS = {
    "github": [("github", {"shard": 1}), ("github", {"shard": 2})],
    # A pull request's runner has nothing but what the registry has.
    "github-registry": [
        ("github-registry", {"shard": 1, "event": "push"}),
        ("github-registry", {"shard": 1, "event": "pull_request"}),
    ],
    "gitlab": [("gitlab", {"shard": 1})],
    "container": [("container", {})],
    "tutorial": [("tutorial", {})],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *JOBS], help=", ".join(JOBS))
    names = parser.parse_args().names
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
        layers = Layers(work / "layers", base, cache / "archives", wheels)
        for name in names or list(JOBS):
            kept = work / name
            start_of_cache(kept)
            (work / f"{name}.registry").mkdir()
            with serving(work / f"{name}.registry", tls=True, login=True) as registry:
                for number, (recipe, of_matrix) in enumerate(JOBS[name]):
                    started = time.monotonic()
                    title = " ".join([recipe, *(f"{key} {value}" for key, value in of_matrix.items())])
                    print(f"==> Recipe {title}", flush=True)
                    read = recipes.read(recipe, **of_matrix)
                    try:
                        job(read, layers, kept, registry, warm=number > 0)
                    except Failed as error:
                        failed.append(f"{title}: {error}")
                    print(f"==> Recipe {title}: {time.monotonic() - started:.0f} s", flush=True)
    for line in failed:
        print(f"failed: {line}")
    return int(bool(failed))


class Layers:
    """What jobs have installed, each step a layer over those before: jobs that install the same share them."""

    def __init__(self, place: Path, base: Path, debs: Path, wheels: Path) -> None:
        self._place = place
        self._base = base
        self.debs = debs
        self.wheels = wheels
        place.mkdir()

    def below(self, recipe: recipes.Recipe, payload: Path) -> list[Path]:
        """What is below a job of `recipe`, the uppermost first: what its first steps install, and the base."""
        found = [self._base]
        done = repr((recipe.user, recipe.project, recipe.confined))
        for step in recipe.installing:
            done = hashlib.sha256(f"{done} {step}".encode()).hexdigest()
            layer = self._place / done[:16]
            if layer.exists():
                print(f"==> {step.name}: as in the job before", flush=True)
            else:
                new = layer.with_suffix(".new")
                with root_over(found, new) as root:
                    checkout(root / recipe.project.lstrip("/"))
                    hand_over(recipe, root)
                    write_steps(recipe, [step], payload, self.wheels)
                    enter(root, payload, self.debs)
                new.rename(layer)
            found.insert(0, layer)
        return found


def job(recipe: recipes.Recipe, layers: Layers, kept: Path, registry: RegistryServer, *, warm: bool) -> None:
    """Run `recipe` in a root of its own, and take from it what it keeps; raises `Failed`.

    `registry` takes the place of the one that it uses.
    """
    with tempfile.TemporaryDirectory(prefix="vmsnap-recipe-") as directory, ExitStack() as stack:
        payload = Path(directory, "payload")
        payload.mkdir()
        below = layers.below(recipe, payload)
        root = stack.enter_context(root_over(below, Path(directory, "top")))
        project = root / recipe.project.lstrip("/")
        if not recipe.shown:  # who reads a tutorial begins with nothing
            checkout(project)
        further = {} if recipe.shown else {"PYTEST_ADDOPTS": f"-k '{SELECTION}'"}
        if recipe.registry:
            further |= connect(recipe, root, payload, registry)
        if not (recipe.registry and warm):
            restore(recipe, root, kept)
        hand_over(recipe, root)
        steps = [step for step in recipe.steps if not (recipe.installing and step.installs)]
        write_steps(recipe, steps, payload, layers.wheels, **further)
        output = enter(root, payload, layers.debs)
        if "passed" not in output:
            raise Failed("its tests did not pass")
        if recipe.registry and not warm and not registry.blobs():
            raise Failed("it pushed nothing")
        if recipe.registry and warm and (BUILT.search(output) or "from the registry" not in output):
            raise Failed("it built what the job before had pushed")
        compare(recipe.shown, output)
        for result in recipe.results:
            if (
                not result.endswith("/") and not (project / result).exists()
            ):  # a directory is there for failures
                raise Failed(f"{result} is not there to be uploaded")
        before = bases(kept)
        keep(recipe, root, kept)
        if warm and recipe.store and bases(kept) != before:
            raise Failed("the store of the job before was of no use: the base state was built again")


def hand_over(recipe: recipes.Recipe, root: Path) -> None:
    """Give the recipe's user the project, or the whole home that it is in."""
    owned = f"/home/{recipe.user}" if recipe.user != "root" else recipe.project
    subprocess.run(["chroot", root, "chown", "-R", f"{recipe.user}:", owned], check=True)


def connect(recipe: recipes.Recipe, root: Path, payload: Path, registry: RegistryServer) -> dict[str, str]:
    """Put `registry` in the place of the recipe's; returns the environment with it and its certificate."""
    assert recipe.registry
    assert registry.certificate
    if recipe.docker_login:
        login = root / "home" / recipe.user / ".docker" / "config.json"
        login.parent.mkdir(parents=True)
        auth_file(login, registry.host)
    # for pip too, which reads the same variable
    authorities = Path("/etc/ssl/certs/ca-certificates.crt").read_text() + registry.certificate.read_text()
    (payload / "authorities.pem").write_text(authorities)
    named = {
        name: value.replace(recipe.registry, registry.host)
        for name, value in recipe.environment.items()
        if recipe.registry in value
    }
    return named | {"REQUESTS_CA_BUNDLE": "/payload/authorities.pem"}


def bases(store: Path) -> set[str]:
    """The keys of the base states in `store`."""
    found = {path.parent.name: json.loads(path.read_text()) for path in store.glob("states/*/meta.json")}
    return {key for key, meta in found.items() if meta["origin"]["name"] == "base"}


def compare(shown: list[Command], output: str) -> None:
    """Raise `Failed` where the output of a command is not what is shown of it, or it ended otherwise."""
    for number, command in enumerate(shown):
        mine = output.partition(recipes.BEGIN.format(number))[2].partition(recipes.END.format(number))
        if (line := command.missing_in(mine[0])) is not None:
            raise Failed(f"{command.text} did not print {line!r}")
        status = mine[2].split()[0]
        if (status != "0") != any("FAILED" in line for line in command.shown):
            raise Failed(f"{command.text} ended with status {status}")


def checkout(project: Path) -> None:
    """The example's files, as git has them."""
    project.mkdir(parents=True, exist_ok=True)
    git = [
        "git",
        "-c",
        f"safe.directory={ROOT}",
        *["ls-files", "-z", "--cached", "--others", "--exclude-standard", "."],
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
    if not recipe.store:
        return
    store = Path(recipe.environment["VMSNAP_STORE"])
    paths = [(Path(recipe.project) / path).relative_to(store) for path in recipe.store]
    place = root / store.relative_to("/")
    shutil.rmtree(kept)
    kept.mkdir()
    with tempfile.TemporaryFile() as archive:
        subprocess.run(["tar", "--posix", "--create", "--directory", place, *paths], stdout=archive, check=True)
        archive.seek(0)
        subprocess.run(["tar", "--extract", "--directory", kept], stdin=archive, check=True)


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is entered is left
    sys.exit(main())
