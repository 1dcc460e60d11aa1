"""What the README says is done as it stands there, on real machines; the tutorial: tests/recipes."""

from __future__ import annotations

import shutil

import pytest

from ..documents import ROOT, blocks, files

# What the README leaves to its reader: the parent of its state, the service, and a test of that.
DATABASE = """
from pytest_vmsnap import state

UNIT = "[Service]\\nExecStart=/srv/service/run\\n"

@state
def database(vm):
    vm.write_text("/etc/systemd/system/service.service", UNIT)
    vm.succeed("systemctl daemon-reload")
"""
SERVICE_TEST = """
import pytest

@pytest.mark.vm_state("service")
def test_the_service_runs(vm):
    vm.wait_for_unit("service")
"""


@pytest.mark.thorough
def test_the_suite_of_the_readme_runs(project: pytest.Pytester, runner: list[str]) -> None:
    example = ROOT / "example_project"
    shutil.copytree(example / "notesd", project.path / "notesd")
    service = project.path / "service" / "run"
    service.parent.mkdir()
    service.write_text("#!/bin/sh\nexec sleep 1000000\n")
    service.chmod(0o755)
    written = {"conftest.py": DATABASE, "test_service.py": SERVICE_TEST}
    for block in blocks("README.md", "python"):
        for name, text in files(block).items():
            name = name or "conftest.py"
            written[name] = written.get(name, "") + text
    for name, text in written.items():
        (project.path / name).write_text(text)
    (settings,) = blocks("README.md", "toml")
    (project.path / "pyproject.toml").write_text(settings.text)
    result = project.run(
        *runner,
        "-v",
        "--vmsnap-packages=python3,curl,e2fsprogs,nftables",  # the image that the example has
        "--vmsnap-memory=512",
    )
    result.assert_outcomes(passed=5)
