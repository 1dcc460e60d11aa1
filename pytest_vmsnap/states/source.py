"""What a preparation is made of: its source, and that of the project's own helpers."""

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
    """What `function` does, as text by name: its source, and what it refers to in the project below `root`.

    Followed by global name, also as ``module.name``: functions, classes, and constants (texts, numbers, paths,
    None, and collections of those); with them default arguments and the values that a closure holds. Looked
    through are decorators that keep `functools.wraps`'s trail. Names are relative to `root`, and the same
    in every process. A function without source counts by its bytecode.

    Not seen: what is called through the attributes of objects (methods of an instance), what is imported
    within a function or by a computed name, and what lies in other packages than the project. A file that the
    preparation reads is for its inputs.
    """
    walk = _Walk(root.resolve())
    walk.follow("", function, needs_home=False)
    return {name: "\n".join(sorted(texts)) for name, texts in sorted(walk.parts.items())}


class _Walk:
    """Goes from a function to all that it refers to, each once."""

    def __init__(self, root: Path) -> None:
        self.parts: dict[str, set[str]] = {}  # several texts for closures of one source
        self._root = root
        self._seen: dict[int, object] = {}  # with the object, so that its id stays its own

    def follow(self, name: str, value: object, *, needs_home: bool = True) -> None:
        """Note what `value` is, under `name` if it is a constant; pass over what is not the project's."""
        for piece in _unwrapped(value):
            if id(piece) not in self._seen and (not needs_home or self._is_ours(_file(piece))):
                self._seen[id(piece)] = piece
                self._note(self._named(piece), _source(piece))
                self._within(piece)
        text = written(value, self._root)
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
        """Follow those of `names` that a module has, `found` being its content, and on into modules there."""
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


def written(value: object, root: Path, around: tuple[int, ...] = ()) -> str | None:
    """A constant as text, the same in every process; None for what is none, or holds what is none.

    Paths below `root` are written relative to it. `around` has the ids of the collections that hold the value.
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
    texts = [written(item, root, around) for item in items]  # type: ignore[attr-defined] # one of the above
    known = [text for text in texts if text is not None]
    if len(known) < len(texts):
        return None
    ordered = sorted(known) if isinstance(value, set | frozenset) else known
    return f"{type(value).__name__}({', '.join(ordered)})"


def _unwrapped(value: object) -> Iterator[Piece]:
    """A function or class, and what it is wrapped around; nothing for other objects."""
    seen: set[int] = set()
    if isinstance(value, MethodType):
        value = value.__func__
    while callable(value) and id(value) not in seen:
        if isinstance(value, FunctionType | type):
            yield value
        seen.add(id(value))
        value = inspect.getattr_static(value, "__wrapped__", None)


def _members(value: object) -> Iterator[object]:
    """What stands in a class: itself, or the functions that a descriptor has."""
    if isinstance(value, staticmethod | classmethod):
        yield value.__func__
    elif isinstance(value, property):
        yield from filter(None, (value.fget, value.fset, value.fdel))
    else:
        yield value


def _file(value: Piece | ModuleType) -> Path | None:
    """Where a thing is defined; None where no file is."""
    found: object = None
    if isinstance(value, FunctionType):
        found = value.__code__.co_filename
        if not Path(value.__code__.co_filename).is_file():  # made by exec
            found = value.__globals__.get("__file__")
    elif isinstance(value, ModuleType):
        found = vars(value).get("__file__") or next(iter(vars(value).get("__path__", ())), None)
    else:
        try:
            found = inspect.getfile(value)
        except (TypeError, OSError):  # built in
            return None
    return Path(found).resolve() if isinstance(found, str) else None


def _source(piece: Piece) -> str:
    try:
        # of the code, since getsource looks through a decorator's wrapper to what it is around
        return inspect.getsource(piece.__code__ if isinstance(piece, FunctionType) else piece)
    except (OSError, TypeError):
        if isinstance(piece, type):
            return piece.__qualname__
        return f"bytecode {hashlib.sha256(_bytecode(piece.__code__).encode()).hexdigest()}"


def _bytecode(code: CodeType) -> str:
    constants = [
        _bytecode(item) if isinstance(item, CodeType) else written(item, Path("/")) for item in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _names(code: CodeType) -> set[str]:
    """The names that code looks up, in the functions within it too."""
    inner = [_names(item) for item in code.co_consts if isinstance(item, CodeType)]
    return set(code.co_names).union(*inner)


def _closure(function: FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
