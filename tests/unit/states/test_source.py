"""What a state is made from: its function, what that uses of the project, and its inputs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap import StateError, state
from pytest_vmsnap.states.declared import declaration_of
from pytest_vmsnap.states.source import inputs_digest, source_parts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODULE = """\
import functools
import json
import helpers
from helpers import install

NAME = "one"
PLACES = {"b", "a"}
UNUSED = 1


class Service:
    port = 80

    def start(self):
        return started()


def started():
    return "started"


def wrapper(function):
    @functools.wraps(function)
    def inner(vm):
        return function(vm)
    return inner


@wrapper
def prepare(vm, greeting="hello"):
    install(vm, NAME)
    helpers.configure(vm)
    for place in PLACES:
        json.dumps(place)
    [Service().start() for _ in range(2)]


def unrelated():
    return 1
"""
HELPERS = """\
WORDS = ("x", "y")

def install(vm, name):
    return recursive(WORDS)

def recursive(words):
    return recursive(words[1:]) if words else install

def configure(vm):
    return "configured"

def other():
    return "other"
"""


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """`digest(module, helpers)`: what `prepare` in a module of such sources is made from, as text."""
    monkeypatch.syspath_prepend(tmp_path)

    def take(module: str, helpers: str) -> str:
        found = {}
        for name, text in {"helpers": helpers, "module": module}.items():
            (tmp_path / f"{name}.py").write_text(text)
            spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
            assert spec
            assert spec.loader
            found[name] = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, found[name])
            importlib.invalidate_caches()
            import linecache

            linecache.clearcache()
            exec(compile(text, tmp_path / f"{name}.py", "exec"), vars(found[name]))  # noqa: S102 - no cached bytecode
        return json.dumps(source_parts(found["module"].prepare, tmp_path), sort_keys=True)

    return take


CHANGES = {
    "the function": (("json.dumps(place)", "json.dumps([place])"), None),
    "a constant": (('NAME = "one"', 'NAME = "two"'), None),
    "a set": (('{"b", "a"}', '{"b", "a", "c"}'), None),
    "a default": (('"hello"', '"good day"'), None),
    "a class": (("port = 80", "port = 81"), None),
    "what a class calls": (('return "started"', 'return "begun"'), None),
    "an imported helper": (None, ("return recursive(WORDS)", "return recursive(WORDS[1:])")),
    "what a helper calls": (None, ("words[1:]", "words[2:]")),
    "a helper's constant": (None, ('("x", "y")', '("x", "z")')),
    "a helper of a module": (None, ('"configured"', '"set up"')),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_it_uses_is_part_of_it(digest: Callable[[str, str], str], what: str) -> None:
    before = digest(MODULE, HELPERS)
    of_module, of_helpers = CHANGES[what]
    module = MODULE.replace(*of_module) if of_module else MODULE
    helpers = HELPERS.replace(*of_helpers) if of_helpers else HELPERS
    assert (module, helpers) != (MODULE, HELPERS)
    assert digest(module, helpers) != before


def test_what_it_does_not_use_is_no_part_of_it(digest: Callable[[str, str], str]) -> None:
    before = digest(MODULE, HELPERS)
    module = MODULE.replace("UNUSED = 1", "UNUSED = 2").replace("    return 1\n", "    return 2\n")
    assert digest(module, HELPERS.replace('"other"', '"another"')) == before


def test_it_is_the_same_wherever_the_project_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from pathlib import Path\nHERE = Path(__file__).parent\ndef prepare(vm): return HERE, __file__\n"
    found = []
    for name in ("one", "two"):
        root = tmp_path / name
        root.mkdir()
        (root / "moved.py").write_text(text)
        spec = importlib.util.spec_from_file_location("moved", root / "moved.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "moved", module)
        spec.loader.exec_module(module)
        found.append(source_parts(module.prepare, root))
    assert found[0] == found[1]
    assert "ROOT" in str(found[0])


def test_it_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    (tmp_path / "helpers.py").write_text(HELPERS)
    code = (
        "import json, module; from pathlib import Path; from pytest_vmsnap.states.source import source_parts; "
        "print(json.dumps(source_parts(module.prepare, Path('.')), sort_keys=True))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


@pytest.fixture
def inputs(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """`inputs(*globs)`: the digest of a state with these inputs, defined in the directory of the test."""
    file = tmp_path / "conftest.py"
    exec(compile("def prepared(vm): ...", file, "exec"), space := {})  # noqa: S102

    def take(*globs: str) -> dict[str, str]:
        found = declaration_of(state(inputs=globs)(space["prepared"]))  # type: ignore[call-overload]
        assert found
        return inputs_digest(found)

    return take


def test_inputs_are_files_by_content_and_mode(tmp_path: Path, inputs: Callable[..., dict[str, str]]) -> None:
    (tmp_path / "files").mkdir()
    one = tmp_path / "files" / "one"
    one.write_text("1")
    (tmp_path / "link").symlink_to("files/one")
    before = inputs("files", "link")
    assert list(before) == ["files/one", "link"]
    one.chmod(0o755)
    changed = inputs("files", "link")
    assert changed != before
    one.write_text("2")
    assert inputs("files", "link") not in (before, changed)


def test_a_glob_that_matches_nothing_is_refused(tmp_path: Path, inputs: Callable[..., dict[str, str]]) -> None:
    with pytest.raises(StateError, match=f"'prepared' has inputs='\\*.conf', and nothing in {tmp_path}"):
        inputs("*.conf")
