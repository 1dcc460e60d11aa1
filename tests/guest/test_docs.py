"""What the README and the tutorial say is done as it stands there, on real machines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..documents import ROOT, blocks, commands, files

if TYPE_CHECKING:
    import pytest

TUTORIAL = "docs/tutorial/first-test.md"
INSTALLS = ("sudo apt-get install ", "mkdir ", "python3 -m venv ", "pip install ")  # see tests/unit/test_docs.py

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


def test_the_tutorial_is_what_happens(project: pytest.Pytester, runner: list[str]) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "80"}
    for block in blocks(TUTORIAL):
        if block.title:
            (project.path / block.title).write_text(block.text)
        for command in commands(block) if block.language == "console" else []:
            if command.text.startswith(INSTALLS):
                continue
            done = subprocess.run(
                command.text,
                shell=True,  # noqa: S602 - as the reader types it
                cwd=project.path,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=300,
                check=False,
            )
            print(f"$ {command.text}\n{done.stdout}")
            assert command.shown, "what it prints is shown, so that it is compared"
            assert command.missing_in(done.stdout) is None
            assert done.returncode == any("FAILED" in line for line in command.shown)


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
    result.assert_outcomes(passed=4)
