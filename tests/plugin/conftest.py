"""Projects that are made for a test, and run by a pytest of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Runs at the start of each Python: libvirt cannot be imported, and what is started or made is noted.
BLOCKER = """\
import os, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in ("libvirt", "libvirtmod", "libvirt_qemu", "libvirtmod_qemu"):
            note("import", name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def note(event, what):
    with open(os.environ["TRACES"], "a") as traces:
        traces.write(f"{event} {what}\\n")

def audit(event, args):
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "socket.connect"):
        note(event, args)

sys.meta_path.insert(0, Blocker())
sys.addaudithook(audit)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """A host without libvirt: the traces of what was tried on it, and its empty home."""

    traces: Path
    home: Path

    def what_was_tried(self) -> list[str]:
        """Imports of libvirt, processes and connections of those that ran since."""
        return self.traces.read_text().splitlines() if self.traces.exists() else []

    def what_was_made(self) -> list[str]:
        """Files and directories in the home."""
        return [str(path) for path in self.home.rglob("*")]


@pytest.fixture
def project(pytester: pytest.Pytester, own_environment: Path) -> pytest.Pytester:
    """An empty project, with the person's own settings and caches out of reach."""
    assert own_environment.is_dir()  # made after pytester, whose home is the project
    return pytester


@pytest.fixture
def bare(project: pytest.Pytester, own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Bare:
    """No libvirt for what `project` runs in a process of its own."""
    site = project.mkdir("site")
    (site / "sitecustomize.py").write_text(BLOCKER)
    traces = project.path / "traces"
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("TRACES", str(traces))
    # pytest-html's metadata ask uname(1) which processor there is
    monkeypatch.setenv("PYTEST_ADDOPTS", f"{os.environ['PYTEST_ADDOPTS']} -p no:html -p no:metadata")
    return Bare(traces=traces, home=own_environment)
