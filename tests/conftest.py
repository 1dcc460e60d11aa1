"""What all tests need: nothing of the person's own settings and caches."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from . import plain

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """What a test that passed made by `pytester` is removed: machines are large.

    The directory itself stays, so that no other test's project gets its name.
    """
    pytester = getattr(item, "funcargs", {}).get("pytester")
    yield
    if pytester and not item.stash[FAILED]:
        for path in pytester.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):  # a test may have made it read-only
                    path.unlink()


@pytest.fixture
def own_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without the plugin's variables, and with an empty home, which is returned."""
    home = tmp_path_factory.mktemp("home")
    for name in os.environ:
        if name.startswith(("VMSNAP_", "XDG_")) or name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTEST_ADDOPTS", plain.ADDOPTS)
    return home
