"""What all tests need: nothing of the person's own settings and caches."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

# pytest-randomly shuffles wherever it is installed; who tests it asks for it by ("-p", "randomly")
PLAIN = "-p no:randomly"

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def own_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without the plugin's variables, and with an empty home, which is returned."""
    home = tmp_path_factory.mktemp("home")
    for name in os.environ:
        if name.startswith(("VMSNAP_", "XDG_")) or name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTEST_ADDOPTS", PLAIN)
    return home
