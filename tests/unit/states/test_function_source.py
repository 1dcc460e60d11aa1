"""What a preparation is made of."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.states import source_parts
from pytest_vmsnap.states.function_source import constant_text

if TYPE_CHECKING:
    from collections.abc import Callable

CONFTEST = """
import functools
from pathlib import Path

import helpers
from helpers import Installer, setting
from package import inner

PACKAGES = ["nginx"]
NAMES = {"one", "two", "three", "four"}
FILE = Path(__file__).parent / "site.conf"
UNUSED = 5
OBJECT = object()

def retried(function):
    attempts = 3
    @functools.wraps(function)
    def wrapper(vm):
        for _ in range(attempts): function(vm)
    return wrapper

@retried
def retrying(vm): vm.succeed("retry")

def other(vm): return prepared(vm)

def unused(vm): pass

def prepared(vm, speed=helpers.SPEED):
    def run(name): vm.succeed(PACKAGES, name, NAMES, FILE, OBJECT)
    [run(name) for name in ("a",)]
    retrying(vm)
    other(vm)
    helpers.install(vm)
    inner.deep.dig(vm)
    Installer(vm).go()
    setting(vm)
"""
HELPERS = """
import json
SPEED = 5
LEVEL = "high"
def install(vm): json.dumps(LEVEL)
def never(vm): pass
class Base:
    def start(self): from_a_method()
class Installer(Base):
    level = 3
    def __init__(self, vm): pass
    def go(self): pass
def from_a_method(): pass
def made(value): return lambda vm: value
setting = made("held")
"""
DUMP = """
import json, sys
from pathlib import Path
import conftest
from pytest_vmsnap.states import source_parts
print(json.dumps(source_parts(conftest.prepared, Path(sys.argv[1]))))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "one")
    return tmp_path / "one"


def write(root: Path) -> None:
    (root / "package" / "deep").mkdir(parents=True)
    (root / "conftest.py").write_text(CONFTEST)
    (root / "helpers.py").write_text(HELPERS)
    (root / "package" / "inner.py").write_text("import package.deep as deep")
    (root / "package" / "deep" / "__init__.py").write_text("def dig(vm): pass")


def parts(root: Path, seed: str = "0") -> dict[str, str]:
    """The parts, as another process has them."""
    path = os.pathsep.join([str(root), str(Path(__file__).parents[3])])
    done = subprocess.run(
        [sys.executable, "-B", "-c", DUMP, str(root)],
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_all_that_is_used_in_the_project_is_a_part_and_nothing_else(root: Path) -> None:
    found = parts(root)
    names = {name for name in found if "Installer." not in name and "Base." not in name}
    assert names == {
        "conftest.py::prepared",
        "conftest.py::prepared(default 0)",
        "conftest.py::PACKAGES",
        "conftest.py::NAMES",
        "conftest.py::FILE",
        "conftest.py::other",
        "conftest.py::retrying",
        "conftest.py::retrying(holds attempts)",
        "helpers.py::install",
        "helpers.py::LEVEL",
        "helpers.py::Installer",
        "helpers.py::Base",
        "helpers.py::from_a_method",
        "helpers.py::made.<locals>.<lambda>",
        "helpers.py::made.<locals>.<lambda>(holds value)",
        "package/deep/__init__.py::dig",
    }
    assert "helpers.py::Installer.level" in found
    assert found["conftest.py::FILE"] == "Path('site.conf' of the project)"
    assert "for _ in range(attempts)" in found["conftest.py::retrying"]
    assert 'vm.succeed("retry")' in found["conftest.py::retrying"]


def test_the_parts_are_the_same_in_every_process_and_place(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "two")
    assert parts(root, "1") == parts(tmp_path / "two", "2")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("conftest.py", "vm.succeed(PACKAGES, ", "vm.fail(PACKAGES, "),
        ("conftest.py", '["nginx"]', '["apache"]'),
        ("conftest.py", '"four"', '"five"'),
        ("conftest.py", "attempts = 3", "attempts = 4"),
        ("conftest.py", '("retry")', '("again")'),
        ("helpers.py", "SPEED = 5", "SPEED = 6"),
        ("helpers.py", '"high"', '"low"'),
        ("helpers.py", "def from_a_method(): pass", "def from_a_method(): return 1"),
        ("helpers.py", "def start(self):", "def start(self, x=1):"),
        ("helpers.py", '"held"', '"other"'),
        ("package/deep/__init__.py", "pass", "return 1"),
    ],
)
def test_a_change_of_what_is_used_changes_the_parts(root: Path, file: str, old: str, new: str) -> None:
    before = parts(root)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))
    assert parts(root) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("conftest.py", "UNUSED = 5", "UNUSED = 6"),
        ("conftest.py", "def unused(vm): pass", "\n\ndef unused(vm): return 1"),
        ("helpers.py", "def never(vm): pass", "def never(vm): return 1"),
    ],
)
def test_a_change_of_what_is_not_used_changes_nothing(root: Path, file: str, old: str, new: str) -> None:
    before = parts(root)
    text = (root / file).read_text()
    (root / file).write_text(text.replace(old, new))
    assert parts(root) == before


def made(text: str) -> Callable[..., object]:
    content: dict[str, Any] = {}
    exec(f"def prepared(vm): {text}", content)  # noqa: S102 - what has no source
    function: Callable[..., object] = content["prepared"]
    return function


def test_a_function_without_source_counts_by_its_bytecode(tmp_path: Path) -> None:
    one, again, other = (source_parts(made(text), tmp_path) for text in ("vm.a({1})", "vm.a({1})", "vm.b()"))
    assert one["prepared"].startswith("bytecode ")
    assert one == again != other


def test_a_method_of_a_plugin_is_taken_by_its_function() -> None:
    class Plugin:
        def prepare(self, vm: Any) -> None:
            vm.succeed("from a method")

    (text,) = source_parts(Plugin().prepare, Path(__file__).parent).values()
    assert 'vm.succeed("from a method")' in text


def test_what_is_installed_is_not_followed(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "site-packages"
    write(site)
    assert "def prepared" in "".join(parts(site).values())
    assert len([name for name in parts(site) if "helpers" in name]) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "'a'"),
        (None, "None"),
        ({"b", "a"}, "set('a', 'b')"),
        (frozenset([2, 1]), "frozenset(1, 2)"),
        ({"b": 1, "a": (True, b"x")}, "dict('b', 1, 'a', tuple(True, b'x'))"),
        ([1.5, [2]], "list(1.5, list(2))"),
        (Path("/project/a"), "Path('a' of the project)"),
        (Path("/etc"), "Path('/etc')"),
        (object(), None),
        ([object()], None),
        (functools, None),
    ],
)
def test_a_constant_is_written_the_same_everywhere(value: object, text: str | None) -> None:
    assert constant_text(value, Path("/project")) == text


def test_a_list_that_holds_itself_is_no_constant() -> None:
    value: list[object] = []
    value.append(value)
    assert constant_text(value, Path("/project")) is None
