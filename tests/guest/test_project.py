"""A project of its own: an image from an address, the wider fixtures, one suite over two machines."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFTEST = """
import pytest

@pytest.fixture(scope="session", params=[160, 224])
def vm_spec(vm_spec, request):
    return vm_spec.replace(memory=request.param)
"""
TESTS = """
def test_the_machine_has_the_memory_of_its_spec(vm, vm_spec):
    kib = int(vm.succeed("grep MemTotal /proc/meminfo").split()[1])
    assert 0.7 * vm_spec.memory < kib / 1024 <= vm_spec.memory

class TestOne:
    def test_begins(self, vm_class, vm_session):
        assert vm_class.read_bytes("/dev/vda") == b"from an address" + bytes(512 - 15)
        vm_class.fail("cat /root/of-the-class")
        vm_class.write_text("/root/of-the-class", "one")
        vm_session.succeed("echo one >>/root/of-the-session")

    def test_goes_on(self, vm_class, vm):
        assert vm_class.read_text("/root/of-the-class") == "one"
        vm.fail("cat /root/of-the-class")

class TestTwo:
    def test_begins_anew(self, vm_class, vm_session, vm_module):
        vm_class.fail("cat /root/of-the-class")
        vm_module.fail("cat /root/of-the-session")
        assert vm_session.read_text("/root/of-the-session") == "one\\n"
"""


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An image of one sector."""
    path = tmp_path / "served" / "disk.raw"
    path.parent.mkdir()
    path.write_bytes(b"from an address".ljust(512, b"\0"))
    return path


@pytest.fixture
def address(disk: Path) -> Iterator[str]:
    """Where a server has it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(disk.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{disk.name}"
    server.shutdown()
    server.server_close()


@pytest.mark.thorough
def test_a_suite_runs_over_two_machines_from_an_address_with_machines_of_every_scope(
    project: pytest.Pytester,
    runner: list[str],
    light: tuple[str, ...],
    disk: Path,
    address: str,
    tmp_path: Path,
) -> None:
    project.makeconftest(CONFTEST)
    project.makepyfile(test_one=TESTS)
    result = project.run(
        *runner,
        "-v",
        *light,
        f"--vmsnap-store={tmp_path / 'store'}",  # nothing is fetched already
        f"--vmsnap-image={address}",
        f"--vmsnap-image-sha256={hashlib.sha256(disk.read_bytes()).hexdigest()}",
    )
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["*test_the_machine_has_the_memory_of_its_spec?160? PASSED*"])
    result.stdout.fnmatch_lines(["*test_the_machine_has_the_memory_of_its_spec?224? PASSED*"])
