"""The source of a preparation, and of the project's own code that it uses."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path, PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INSTALLED = ("site-packages", "dist-packages")
Piece = FunctionType | type


def source_parts(function: Callable[..., object], root: Path) -> dict[str, str]:
    """The source of `function`, and of what it uses in the project below `root`: texts by name.

    This follows global names, also as ``module.name``, to functions, classes and constants (strings, numbers,
    paths, None, and collections of these), and it includes default arguments and the values in closures. It
    looks through decorators that use `functools.wraps`. Names are relative to `root`, and the same in every
    process. A function without source is represented by its bytecode.

    Not followed: methods that are called on instances, imports inside functions or by a computed name, and
    packages outside the project. Files that the preparation reads belong in the state's inputs.
    """
    walk = _Walk(root.resolve())
    walk.follow("", function, needs_home=False)
    return {name: "\n".join(sorted(texts)) for name, texts in sorted(walk.parts.items())}


class _Walk:
    """Visits a function and everything that it refers to, each once."""

    def __init__(self, root: Path) -> None:
        self.parts: dict[str, set[str]] = {}  # several texts if functions of the same source hold other values
        self._root = root
        self._seen: dict[int, object] = {}  # by id; keeps the object alive, so that no other gets its id

    def follow(self, name: str, value: object, *, needs_home: bool = True) -> None:
        """Record the source of `value`, or its text under `name` if it is a constant; skip foreign code."""
        for piece in _unwrapped(value):
            if id(piece) not in self._seen and (not needs_home or self._is_ours(_file(piece))):
                self._seen[id(piece)] = piece
                self._note(self._named(piece), _source(piece))
                self._within(piece)
        text = constant_text(value, self._root)
        if text is not None:
            self._note(name, text)

    def _within(self, piece: Piece) -> None:
        own = self._named(piece)
        if isinstance(piece, type):
            for base in piece.__bases__:
                self.follow("", base)
            for name, value in list(vars(piece).items()):
                if not _is_dunder(name) or callable(value):
                    for member in _members(value):
                        self.follow(f"{own}.{name}", member)
            return
        for index, value in enumerate(piece.__defaults__ or ()):
            self.follow(f"{own}(default {index})", value)
        for name, value in (piece.__kwdefaults__ or {}).items():
            self.follow(f"{own}(default {name})", value)
        for name, value in _closure(piece):
            self.follow(f"{own}(holds {name})", value)
        names = sorted(_names(piece.__code__))
        self._look_up(_file(piece), piece.__globals__, names, ())

    def _look_up(
        self, file: Path | None, found: dict[str, Any], names: list[str], modules: tuple[ModuleType, ...]
    ) -> None:
        """Follow those of `names` that are in the module namespace `found`, also within modules in it."""
        for name in names:
            if name not in found or _is_dunder(name):
                continue
            value = found[name]
            if not isinstance(value, ModuleType):
                self.follow(self._name(file, name), value)
            elif value not in modules and self._is_ours(_file(value)):
                self._look_up(_file(value), vars(value), names, (*modules, value))

    def _note(self, name: str, text: str) -> None:
        self.parts.setdefault(name, set()).add(text)

    def _named(self, piece: Piece) -> str:
        return self._name(_file(piece), piece.__qualname__)

    def _name(self, file: Path | None, name: str) -> str:
        if file is None:
            return name
        return f"{file.relative_to(self._root).as_posix() if self._is_ours(file) else file.name}::{name}"

    def _is_ours(self, file: Path | None) -> bool:
        return (
            file is not None
            and file.is_relative_to(self._root)
            and not any(part in INSTALLED for part in file.parts)
        )


def constant_text(value: object, root: Path, around: tuple[int, ...] = ()) -> str | None:
    """A constant as text, the same in every process; None if `value` is or contains something else.

    Paths below `root` are relative to it. `around` has the ids of the collections that contain the value.
    """
    if type(value) in (str, bytes, int, float, complex, bool, type(None), type(...)):
        return repr(value)
    if isinstance(value, PurePath):
        inside = value.is_relative_to(root)
        return (
            f"Path({str(value.relative_to(root) if inside else value)!r}{' of the project' if inside else ''})"
        )
    if type(value) not in (tuple, list, dict, set, frozenset) or id(value) in around:
        return None
    around = (*around, id(value))
    items = [item for pair in value.items() for item in pair] if isinstance(value, dict) else value
    texts = [constant_text(item, root, around) for item in items]  # type: ignore[attr-defined] # one of the above
    known = [text for text in texts if text is not None]
    if len(known) < len(texts):
        return None
    ordered = sorted(known) if isinstance(value, set | frozenset) else known
    return f"{type(value).__name__}({', '.join(ordered)})"


def _unwrapped(value: object) -> Iterator[Piece]:
    """A function or class, and what it wraps; nothing for other objects."""
    seen: set[int] = set()
    if isinstance(value, MethodType):
        value = value.__func__
    while callable(value) and id(value) not in seen:
        if isinstance(value, FunctionType | type):
            yield value
        seen.add(id(value))
        value = inspect.getattr_static(value, "__wrapped__", None)


def _members(value: object) -> Iterator[object]:
    """The functions of a descriptor in a class, or the value itself."""
    if isinstance(value, staticmethod | classmethod):
        yield value.__func__
    elif isinstance(value, property):
        yield from filter(None, (value.fget, value.fset, value.fdel))
    else:
        yield value


def _file(value: Piece | ModuleType) -> Path | None:
    """The file that defines `value`; None if there is none."""
    found: object = None
    if isinstance(value, FunctionType):
        found = value.__code__.co_filename
        if not Path(value.__code__.co_filename).is_file():  # made with exec()
            found = value.__globals__.get("__file__")
    elif isinstance(value, ModuleType):
        found = vars(value).get("__file__") or next(iter(vars(value).get("__path__", ())), None)
    else:
        try:
            found = inspect.getfile(value)
        except (TypeError, OSError):  # a built-in class
            return None
    return Path(found).resolve() if isinstance(found, str) else None


def _source(piece: Piece) -> str:
    try:
        # pass the code, because getsource() of a wrapper returns the source of the function that it wraps
        return inspect.getsource(piece.__code__ if isinstance(piece, FunctionType) else piece)
    except (OSError, TypeError):
        if isinstance(piece, type):
            return piece.__qualname__
        return f"bytecode {hashlib.sha256(_bytecode(piece.__code__).encode()).hexdigest()}"


def _bytecode(code: CodeType) -> str:
    constants = [
        _bytecode(item) if isinstance(item, CodeType) else constant_text(item, Path("/"))
        for item in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _names(code: CodeType) -> set[str]:
    """The names that code looks up, also in nested functions."""
    inner = [_names(item) for item in code.co_consts if isinstance(item, CodeType)]
    return set(code.co_names).union(*inner)


def _closure(function: FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # the cell is still empty
            continue


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
