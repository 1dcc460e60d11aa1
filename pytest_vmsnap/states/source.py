"""The source of what prepares a state: when it changes, the state is made anew."""

from __future__ import annotations

import hashlib
import inspect
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.states.declared import Declaration

PLAIN = (str, bytes, int, float, bool, type(None), Path)


def source_parts(function: Callable[..., object], root: Path) -> dict[str, str]:
    """The source of `function`, and of what it uses of the project whose root is `root`: plain data for a key.

    That is functions and classes whose code lies below `root`, in any module, constants of their modules,
    defaults and closures, as far as names in the code lead to them. What it reaches otherwise is not
    seen: through attributes of objects, by imports at run time, in other packages, in files that it reads
    (give these as ``inputs``).
    """
    parts: dict[str, str] = {}
    _collect(inspect.unwrap(function), root.resolve(), parts)
    return parts


def _collect(thing: Any, root: Path, parts: dict[str, str]) -> None:
    name = f"{_place(thing, root)}:{thing.__qualname__}"
    if name in parts:
        return
    parts[name] = _source(thing)
    for function in _functions(thing):
        for what, value in _values(function):
            _note(f"{name}:{what}", value, root, parts)


def _note(name: str, value: Any, root: Path, parts: dict[str, str]) -> None:
    if isinstance(value, (types.FunctionType, type)):
        value = inspect.unwrap(value)
        if _is_project(value, root):
            _collect(value, root, parts)
    elif (text := _plain(value)) is not None:
        parts[name] = text.replace(str(root), "ROOT")  # a project may be moved


def _functions(thing: Any) -> Iterator[types.FunctionType]:
    if isinstance(thing, types.FunctionType):
        yield thing
    elif isinstance(thing, type):
        for each in vars(thing).values():
            each = getattr(each, "__func__", getattr(each, "fget", each))
            if isinstance(each, types.FunctionType):
                yield each


def _values(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What the function's code names: globals, members of modules, defaults, closures."""
    names = sorted(_names(function.__code__))
    for name in names:
        if name not in function.__globals__ or name.startswith("__"):
            continue
        value = function.__globals__[name]
        if isinstance(value, types.ModuleType):
            yield from (
                (f"{name}.{member}", getattr(value, member)) for member in names if hasattr(value, member)
            )
        else:
            yield name, value
    yield "defaults", function.__defaults__
    yield "keyword defaults", function.__kwdefaults__
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"closure {name}", cell.cell_contents
        except ValueError:  # empty
            continue


def _names(code: types.CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _plain(value: Any) -> str | None:
    """A constant's text, the same in every process; None for what is none."""
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, (tuple, list, set, frozenset)):
        texts = [_plain(each) for each in value]
        if any(text is None for text in texts):
            return None
        inner = sorted(map(str, texts)) if isinstance(value, (set, frozenset)) else map(str, texts)
        return f"{type(value).__name__}({', '.join(inner)})"
    if isinstance(value, dict):
        return _plain(list(value.items()))
    return None


def _file(thing: Any) -> Path | None:
    if isinstance(thing, types.FunctionType):
        return Path(thing.__code__.co_filename)
    found = getattr(sys.modules.get(thing.__module__), "__file__", None)
    return Path(found) if found else None


def _is_project(thing: Any, root: Path) -> bool:
    if (file := _file(thing)) is None:
        return False
    file = file.resolve()
    return file.is_relative_to(root) and not {"site-packages", "dist-packages"} & set(file.parts)


def _place(thing: Any, root: Path) -> str:
    file = _file(thing)
    if file and file.resolve().is_relative_to(root):
        return file.resolve().relative_to(root).as_posix()
    return str(thing.__module__)


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        if not isinstance(thing, types.FunctionType):
            return "no source"
        return hashlib.sha256(thing.__code__.co_code + repr(thing.__code__.co_names).encode()).hexdigest()


def inputs_digest(declaration: Declaration) -> dict[str, str]:
    """A digest of the mode and the content of each file that the state's inputs match, by its path.

    Raises `StateError` for a glob that matches nothing.
    """
    directory = declaration.file.parent
    found: dict[str, str] = {}
    for glob in declaration.inputs:
        matches = sorted(path for match in directory.glob(glob) for path in _within(match))
        if not matches:
            raise StateError(
                f"the state {declaration.name!r} has inputs={glob!r}, and nothing in {directory} matches"
            )
        found |= {path.relative_to(directory).as_posix(): _digest(path) for path in matches}
    return dict(sorted(found.items()))


def _within(path: Path) -> list[Path]:
    if path.is_dir() and not path.is_symlink():
        return [each for each in path.rglob("*") if each.is_symlink() or each.is_file()]
    return [path]


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    found = hashlib.sha256(f"{path.stat().st_mode & 0o777:o}\n".encode())
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
