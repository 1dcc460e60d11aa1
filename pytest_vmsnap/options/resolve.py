"""Resolve the three sources to settings: which value wins, and which options go together."""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.model import Settings
from pytest_vmsnap.options.option import PREFIX, Option, OptionError, plain
from pytest_vmsnap.options.table import BY_NAME, OPTIONS
from pytest_vmsnap.options.values import is_address, is_debian

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pytest_vmsnap.model import Origin


def resolve(
    command_line: Mapping[str, object],
    environment: Mapping[str, str],
    ini: Mapping[str, object],
    root: Path,
    *,
    cwd: Path | None = None,
) -> Settings:
    """Return the settings: command line over environment over configuration file over default.

    `command_line` and `ini` map `Option.key` to a value, or None if it is not set; an empty variable counts as
    not set. Paths on the command line and in the environment are relative to `cwd` (if None, to `root`), those
    in the configuration file to `root`.

    Raises `OptionError`, with the option as it was written, for a value that is not allowed and for options
    that do not go together; also for a variable whose name is nearly that of an option.
    """
    _check_variables(environment)
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    raw: dict[str, object] = {}
    for option in OPTIONS:
        origin, raw[option.name] = _find(option, command_line, environment, ini)
        base = root if origin == "ini" or cwd is None else cwd
        values[option.name] = _value(option, origin, raw[option.name], base)
        origins[option.name] = origin
    _leave_out_kernel_of_other_image(values, origins, ini, environment)
    _check_combinations(values, origins, raw)
    return Settings(root=root, origins=origins, **values)


def _leave_out_kernel_of_other_image(
    values: dict[str, Any],
    origins: dict[str, Origin],
    ini: Mapping[str, object],
    environment: Mapping[str, str],
) -> None:
    """Ignore a kernel that a weaker source names for an image of its own, if another image is used."""
    names_image = {
        "ini": ini.get(BY_NAME["image"].key),
        "environment": environment.get(BY_NAME["image"].variable),
    }
    for name in ("kernel", "initrd", "cmdline", "modules"):
        is_weaker = _PRECEDENCE.index(origins[name]) < _PRECEDENCE.index(origins["image"])
        if is_weaker and names_image.get(origins[name]):
            values[name], origins[name] = BY_NAME[name].default, origins["image"]


def _find(
    option: Option,
    command_line: Mapping[str, object],
    environment: Mapping[str, str],
    ini: Mapping[str, object],
) -> tuple[Origin, object]:
    given = command_line.get(option.key)
    if given is not None:
        return "command line", given
    if not option.command_line_only:
        if variable := environment.get(option.variable):
            return "environment", variable
        given = ini.get(option.key)
        if given is not None:
            return "ini", given
    return "default", option.default


def _value(option: Option, origin: Origin, raw: object, base: Path) -> Any:
    if origin == "default":
        return option.default
    try:
        value = option.parse(raw)
    except ValueError as error:
        message = f"{option.written(origin, raw)}: allowed: {option.allowed}"
        raise OptionError(message) from error
    return option.make_absolute(value, base) if option.make_absolute and value is not None else value


# Each option in the first column needs a value of the option in the second; the condition gets all values.
_COMPANIONS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], bool], str], ...] = (
    (
        "image_sha256",
        "image",
        lambda all_: is_address(all_["image"]),
        "needs an image that is an http(s):// URL",
    ),
    ("packages", "image", lambda all_: is_debian(all_["image"]), "needs an image debian:SUITE"),
    ("initrd", "kernel", lambda all_: all_["kernel"] is not None, "needs a kernel"),
    (
        "cmdline",
        "kernel",
        lambda all_: all_["kernel"] is not None or is_debian(all_["image"]),
        "needs a kernel",
    ),
    ("modules", "kernel", lambda all_: all_["kernel"] is not None, "needs a kernel"),
    ("console_password", "console_user", lambda all_: all_["console_user"] is not None, "needs a user"),
)
_PRECEDENCE: tuple[Origin, ...] = ("default", "ini", "environment", "command line")


def _check_combinations(values: dict[str, Any], origins: dict[str, Origin], raw: Mapping[str, object]) -> None:
    """Raise `OptionError` for options that do not go together.

    An option from a weaker source is ignored instead: a project's digest says nothing about an image that is
    given on the command line.
    """
    for name, principal, suits, words in _COMPANIONS:
        option = BY_NAME[name]
        if values[name] == option.default or suits(values):
            continue
        if _PRECEDENCE.index(origins[name]) < _PRECEDENCE.index(origins[principal]):
            values[name], origins[name] = option.default, origins[principal]
            continue
        other = _named(BY_NAME[principal], origins[principal], raw[principal])
        raise OptionError(
            f"{option.written(origins[name], raw[name])} {words}, and does not go together with {other}"
        )
    if is_address(values["image"]) and values["image_sha256"] is None:
        raise OptionError(
            f"{_named(BY_NAME['image'], origins['image'], raw['image'])}: an image from a URL needs its "
            "digest: set "
            f"{_names('image_sha256')}",
            hint="its publisher lists it (often in SHA256SUMS next to the image); for a file that you trust, "
            "`sha256sum FILE` prints it",
        )
    if values["push"] and values["registry"] is None:
        raise OptionError(f"{BY_NAME['push'].flag} needs a registry to push to: set {_names('registry')}")
    if values["image"] is None and values["kernel"] is None:
        written = _named(BY_NAME["image"], origins["image"], raw["image"])
        raise OptionError(f"{written}: a machine without an image needs {_names('kernel')}")


def _named(option: Option, origin: Origin, raw: object) -> str:
    if origin == "default":
        return f"the default {option.name} ({plain(raw) or 'none'})"
    return option.written(origin, raw)


def _names(name: str) -> str:
    option = BY_NAME[name]
    return f"{option.flag}, {option.variable} or {option.key}"


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that begin with our prefix and are not an option."""
    known = {option.variable for option in OPTIONS if not option.command_line_only}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def _check_variables(environment: Mapping[str, str]) -> None:
    """Raise `OptionError` for a variable that is nearly an option's name; others may be somebody else's."""
    known = [option.variable.removeprefix(PREFIX) for option in OPTIONS if not option.command_line_only]
    for name in unknown_variables(environment):
        near = difflib.get_close_matches(name.removeprefix(PREFIX), known, cutoff=0.75)
        if near:
            names = ", ".join(PREFIX + match for match in near)
            raise OptionError(f"{name} in the environment is not an option; did you mean {names}?")


def native_table(path: Path | None) -> Mapping[str, object]:
    """Return pytest's own TOML table in the file `path` (pytest 9), whose values have types; empty if none.

    It is ``[tool.pytest]`` as in ``pyproject.toml``, or ``[pytest]`` as in ``pytest.toml``.
    """
    if path is None or path.suffix != ".toml":
        return {}
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    found: Mapping[str, object] = document.get("tool", {}).get("pytest") or document.get("pytest", {})
    return found
