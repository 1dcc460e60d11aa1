"""Two stores and one registry: what the first pushes, the second runs on, without an image build or a boot."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import image
from pytest_vmsnap.progress import Progress, silent
from pytest_vmsnap.states import image_request
from pytest_vmsnap.store import Store, checksum

from .. import plain
from ..registry_server import PASSWORD, RegistryServer, auth_file, serving
from .stores import copy_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_vmsnap.session import VmsnapSession

CONFTEST = """
from pytest_vmsnap import state

@state
def one(vm):
    vm.succeed("echo 1 >/root/one; echo in-memory >/dev/shm/one; sleep 77777 >/dev/null 2>&1 &")

@state(parent=one)
def two(vm):
    vm.succeed("echo 2 >/root/two")
"""
TESTS = """
import pytest

@pytest.mark.vm_state("two")
def test_two(vm):
    assert vm.succeed("cat /root/one /root/two /dev/shm/one") == "1\\n2\\nin-memory\\n"
    vm.succeed("pgrep -f 'sleep 77777'")

def test_base(vm):
    vm.fail("test -e /root/one")
"""


class Suite:
    """A project in `path`, the registry `server`, and as many stores as tests ask for.

    `first` is a store with the image, so that no test has to build it; the first run with it makes the states.
    """

    def __init__(self, path: Path, server: RegistryServer, environment: dict[str, str], stores: Path) -> None:
        self.path = path
        self.server = server
        self.environment = environment
        self.first = stores / "first"
        self._stores = stores
        self._count = 0

    def store(self) -> Path:
        """An empty store."""
        self._count += 1
        return self._stores / str(self._count)

    def run(self, store: Path, *arguments: str) -> str:
        """Run the tests with this store, and return what pytest printed."""
        done = self._start("-m", "pytest", f"--vmsnap-store={store}", *arguments)
        assert "2 passed" in done.stdout, done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done.stdout

    def vmsnap(self, store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = "import sys; from pytest_vmsnap.cli import main; sys.exit(main())"
        return self._start("-c", command, "--store", str(store), *arguments)

    def _start(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def suite(vmsnap: VmsnapSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    path, stores = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("stores")
    (path / "conftest.py").write_text(CONFTEST)
    (path / "test_it.py").write_text(TESTS)
    (path / "pytest.ini").write_text("[pytest]\n")
    request = image_request(vmsnap.settings.spec(), root=vmsnap.settings.root)
    built = image.provide(request, store=vmsnap.store, progress=Progress(print))
    Store(stores / "first", progress=silent())
    assert built.disk
    copy_tree(built.disk.parent, stores / "first" / "images" / built.disk.parent.name)
    with serving(tmp_path_factory.mktemp("registry"), tls=True, login=True) as server:
        environment = os.environ | {
            "VMSNAP_URI": vmsnap.facts.uri.uri,
            "VMSNAP_REGISTRY": server.address,
            "REQUESTS_CA_BUNDLE": str(server.certificate),
            "REGISTRY_AUTH_FILE": str(auth_file(path / "auth.json", server.host)),
            "PYTEST_ADDOPTS": f"{plain.ADDOPTS} -p no:cacheprovider",
        }
        yield Suite(path, server, environment, stores)
    shutil.rmtree(stores)


def test_what_one_store_pushes_another_runs_on(suite: Suite) -> None:
    first = suite.run(suite.first, "--vmsnap-push")
    assert "booting" in first
    store = suite.store()
    second = suite.run(store)
    assert "booting" not in second
    assert "preparing" not in second
    assert "building" not in second
    assert "2 states from the registry" in second
    assert "2 states from the store" in suite.run(store)
    assert suite.vmsnap(store, "verify").stdout.endswith("no damage found\n")
    assert "0 states" not in suite.vmsnap(store, "states").stdout


def test_states_are_pushed_pulled_and_locked_by_hand(suite: Suite) -> None:
    suite.run(suite.first)
    pushed = suite.vmsnap(suite.first, "push", "two")
    assert pushed.returncode == 0, pushed.stderr
    assert "it was there already" in suite.vmsnap(suite.first, "push", "two").stdout
    store = suite.store()
    nothing = suite.vmsnap(store, "pull", "nothing")
    assert (nothing.returncode, "has no state nothing" in nothing.stderr) == (1, True)
    pulled = suite.vmsnap(store, "pull", "two")
    assert pulled.returncode == 0, pulled.stderr
    assert "MB received" in pulled.stdout
    assert "it was in the store already" in suite.vmsnap(store, "pull", "two").stdout
    why = suite.vmsnap(suite.first, "states", "--why", "two").stdout
    assert re.search(r"in the store, two@\w+: fits\nin the registry, two@\w+: fits", why), why

    lock = suite.path / "vmsnap.lock"
    try:
        locked = suite.vmsnap(suite.first, "lock")
        assert locked.returncode == 0, locked.stderr
        assert suite.vmsnap(suite.store(), "pull", "two").returncode == 0
        lock.write_text(re.sub(r"sha256:\w{4}", "sha256:0000", lock.read_text()))
        wrong = suite.vmsnap(suite.store(), "pull", "two")
        assert wrong.returncode == 1
        assert "does not have sha256:0000" in wrong.stderr
    finally:
        lock.unlink(missing_ok=True)


def test_a_state_in_the_system_store_is_built_by_nobody_else(suite: Suite, tmp_path: Path) -> None:
    suite.run(suite.first)
    suite.environment["VMSNAP_SYSTEM_STORE"] = str(tmp_path / "system")
    store = suite.store()
    try:
        for how in ("shared in", "it was shared already in"):
            shared = suite.vmsnap(suite.first, "share", "two", "base")
            assert f"{how} {tmp_path / 'system'}" in shared.stdout, shared.stderr
        said = suite.run(store)
        assert "2 states from the system store" in said
        assert "booting" not in said
        assert "preparing" not in said
        assert "2 states from the store" in suite.run(store)
        assert suite.vmsnap(store, "verify").stdout.endswith("no damage found\n")
        exported = suite.vmsnap(store, "export", "two", str(tmp_path / "two.vmsnap"))
        assert exported.returncode == 0, exported.stderr
        imported = suite.vmsnap(suite.store(), "import", str(tmp_path / "two.vmsnap"))
        assert imported.returncode == 0, imported.stderr
    finally:
        del suite.environment["VMSNAP_SYSTEM_STORE"]


@pytest.mark.thorough
def test_what_does_not_fit_is_said_with_the_part_that_differs(suite: Suite) -> None:
    suite.run(suite.first, "--vmsnap-push")
    store = suite.store()
    try:
        (suite.path / "conftest.py").write_text(CONFTEST.replace("echo 2", "echo  2"))
        said = suite.run(store)
        assert "the registry's state two does not fit: two.source.conftest.py::two differs" in said
        assert "booting" not in said  # its parent fits
        why = suite.vmsnap(store, "states", "--why", "two").stdout
        assert re.search(r"in the registry, two@\w+: does not fit\n  two\.source\.\S+ differs", why), why
    finally:
        (suite.path / "conftest.py").write_text(CONFTEST)


@pytest.fixture
def changed(suite: Suite, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The entry of the state `one` in the first store, to be changed and pushed to another repository.

    As somebody who may push could make one: the store's own record of the files fits them.
    """
    suite.run(suite.first)
    (one,) = [
        path.parent
        for path in (suite.first / "states").glob("*/meta.json")
        if json.loads(path.read_text())["origin"]["name"] == "one"
    ]
    aside = suite.first / "aside"
    copy_tree(one, aside)
    suite.environment["VMSNAP_REGISTRY"] = f"{suite.server.address}/{request.node.name.lower()}"
    yield one
    suite.environment["VMSNAP_REGISTRY"] = suite.server.address
    shutil.rmtree(one)
    aside.rename(one)


def push_changed(suite: Suite, entry: Path, name: str, content: bytes) -> None:
    """Give the file `name` of the entry another `content`, and push the entry."""
    file, record = entry / name, entry / "manifest.json"
    file.chmod(0o600)
    file.write_bytes(content)
    noted = json.loads(record.read_text())
    noted[name] = [file.stat().st_size, file.stat().st_mtime_ns, checksum(file)]
    record.write_text(json.dumps(noted))
    pushed = suite.vmsnap(suite.first, "push", "one")
    assert pushed.returncode == 0, pushed.stderr


@pytest.mark.thorough
def test_a_state_that_names_a_file_of_the_host_is_refused(suite: Suite, changed: Path) -> None:
    meta = json.loads((changed / "meta.json").read_text())
    meta["image"]["initrd"] = "../../../../../../etc/passwd"
    push_changed(suite, changed, "meta.json", json.dumps(meta).encode())
    said = suite.run(suite.store())
    assert "the state one cannot be pulled, and will be built: it refers to a file outside" in said


@pytest.mark.thorough
def test_a_pulled_state_that_does_not_load_is_built_instead(suite: Suite, changed: Path) -> None:
    push_changed(suite, changed, "device-state", b"no device state" * 1000)
    store = suite.store()
    said = suite.run(store)
    assert "it came from another store, and cannot be used on this host" in said
    assert "preparing the state one" in said or "states built" in said
    assert "from the store" in suite.run(store)


@pytest.mark.thorough
def test_a_state_on_a_file_of_this_host_is_not_pushed(suite: Suite, vmsnap: VmsnapSession) -> None:
    kernel = next((suite.first / "images").glob("*/kernel"))
    own = suite.path / "own-kernel"
    shutil.copy(kernel, own)
    store = suite.store()
    copy_tree(suite.first / "images", store / "images")
    shutil.copy(suite.first / "format", store)
    said = suite.run(store, f"--vmsnap-kernel={own}", "--vmsnap-push")
    assert f"cannot be pushed: it was made from {own}, a file of this host" in said
