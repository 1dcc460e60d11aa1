"""The options: one table, and its reader.

Each row is an option on the command line (``--vmsnap-NAME``, with dashes), in the environment
(``VMSNAP_NAME``) and in pytest's configuration file (``vmsnap_NAME``), the former before the latter. All is
plain functions over mappings, so that whoever has the three sources reads the same as pytest does.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pytest_vmsnap.errors import VmsnapError
from pytest_vmsnap.model import (
    Accel,
    Artifacts,
    ChannelName,
    Entropy,
    Missing,
    Network,
    Order,
    Origin,
    Revert,
    Settings,
    Verify,
)
from pytest_vmsnap.model.settings import STANDBY_CEILING, masked
from pytest_vmsnap.model.spec import CPUS_CEILING, MEMORY_MIB_FLOOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PREFIX = "VMSNAP_"


class OptionError(VmsnapError):
    """An option has a value that it cannot have, or does not go with another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A row of the table.

    `parse` makes the value of what was written: text, or what a TOML file gives; it raises `ValueError`.
    `allowed` says which values there are. `anchor` makes a path in the value absolute, given the directory
    that it is relative to. `many` is a list, repeatable on the command line. A `secret` is never shown. A
    `switch` is on where its name stands on the command line, without a value.
    """

    name: str
    parse: Callable[[object], Any]
    help: str
    allowed: str
    default: Any = None
    anchor: Callable[[str, Path], Any] | None = None
    many: bool = False
    secret: bool = False
    command_line_only: bool = False
    switch: bool = False

    @property
    def flag(self) -> str:
        """The name on the command line."""
        return f"--vmsnap-{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return PREFIX + self.name.upper()

    @property
    def key(self) -> str:
        """The name in the configuration file, and among the command line's values."""
        return f"vmsnap_{self.name}"

    @property
    def description(self) -> str:
        """The help with what is allowed and the default."""
        allowed = "" if self.switch else f": {self.allowed}"
        where = "command line only; " if self.command_line_only else ""
        return f"{self.help}{allowed} ({where}default: {_told(self.default)})"

    @property
    def argument(self) -> dict[str, Any]:
        """How argparse is to read it: what `addoption` takes beside the flag."""
        words = {"dest": self.key, "default": None, "help": self.description.replace("%", "%%")}
        if self.switch:
            return words | {"action": "store_true"}
        metavar = self.name.rpartition("_")[2].upper()
        return words | {"action": "append" if self.many else "store", "metavar": metavar}

    def written(self, origin: Origin, value: object) -> str:
        """Name and value as the person wrote them."""
        text = "***" if self.secret else masked(_plain(value))
        if origin == "ini":
            return f"{self.key} = {text} (configuration file)"
        return f"{self.flag if origin == 'command line' else self.variable}={text}"


# Parsers: from what was written to the value.


def text(value: object) -> str | None:
    """Text; an empty one is none."""
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value.strip() or None


def texts(value: object) -> tuple[str, ...]:
    """Texts with commas or new lines between them."""
    items: list[str] = []
    for part in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(part, str):
            raise ValueError("not a text")
        items += [item.strip() for item in re.split(r"[,\n]", part) if item.strip()]
    if any(re.search(r"\s", item) for item in items):
        raise ValueError("a space within an item")
    return tuple(items)


def image(value: object) -> str | None:
    """A path, an address, ``debian:SUITE``, or ``none``."""
    found = text(value)
    if found is None or (":" in found and not (is_address(found) or is_debian(found) or _is_pathlike(found))):
        raise ValueError("no image")
    return None if found == "none" else found


def sha256(value: object) -> str | None:
    """64 hexadecimal digits, with or without ``sha256:`` before them."""
    found = text(value)
    if found is None:
        return None
    found = found.lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", found):
        raise ValueError("no digest")
    return found


def number(low: int, high: int | None) -> Callable[[object], int]:
    """Reads whole numbers from `low` to `high`."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError("not a whole number")
        found = int(value)
        if found < low or (high is not None and found > high):
            raise ValueError("out of range")
        return found

    return parse


_SIZE = re.compile(r"(\d+)\s*(?:([MGT])(?:i?B)?)?", re.IGNORECASE)
_UNITS_MIB = {"M": 1, "G": 1 << 10, "T": 1 << 20}


def size(low: int) -> Callable[[object], int]:
    """Reads sizes in MiB, or with a unit of powers of 1024 (``2G``, ``2GB`` and ``2GiB`` are the same)."""
    whole = number(low, None)

    def parse(value: object) -> int:
        if isinstance(value, str):
            match = _SIZE.fullmatch(value.strip())
            if not match:
                raise ValueError("not a size")
            value = int(match[1]) * _UNITS_MIB[(match[2] or "M").upper()]
        return whole(value)

    return parse


def positive(value: object) -> float:
    """A number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    found = float(value)
    if not 0 < found < math.inf:  # false for nan too
        raise ValueError("out of range")
    return found


def positive_or_none(value: object) -> float | None:
    """A number above 0; an empty text is none."""
    return None if isinstance(value, str) and not value.strip() else positive(value)


def number_or_auto(low: int, high: int) -> Callable[[object], int | None]:
    """Reads a whole number from `low` to `high`; ``auto`` is none."""
    whole = number(low, high)

    def parse(value: object) -> int | None:
        return None if isinstance(value, str) and value.strip() in ("", "auto") else whole(value)

    return parse


def number_or_failed(value: object) -> int | Literal["failed"]:
    """A whole number from 0 on, or ``failed``."""
    return "failed" if value == "failed" else number(0, None)(value)


def switch(value: object) -> bool:
    """On or off: True or False."""
    if not isinstance(value, bool):
        raise ValueError("neither on nor off")
    return value


def one_of(choices: tuple[str, ...]) -> Callable[[object], str]:
    """Reads one of `choices`."""

    def parse(value: object) -> str:
        found = text(value)
        if found not in choices:
            raise ValueError("no such choice")
        return found

    return parse


# What an image is, and where a path is.


def is_address(image: str | None) -> bool:
    """Whether the image is fetched."""
    return image is not None and image.lower().startswith(("http://", "https://"))


def is_debian(image: str | None) -> bool:
    """Whether the image is built."""
    return image is not None and re.fullmatch(r"debian:[a-z][a-z0-9-]*", image) is not None


def _is_pathlike(image: str) -> bool:
    return image.startswith(("/", ".", "~"))


def _path(value: str, base: Path) -> Path:
    return base / Path(value).expanduser()


def _path_text(value: str, base: Path) -> str:
    return str(_path(value, base))


def _image_text(value: str, base: Path) -> str:
    return value if is_address(value) or is_debian(value) else _path_text(value, base)


def _choice(name: str, choices: tuple[str, ...], default: str, help: str) -> Option:  # noqa: A002 - as argparse
    return Option(name=name, parse=one_of(choices), allowed=", ".join(choices), default=default, help=help)


OPTIONS: tuple[Option, ...] = (
    Option(
        name="image",
        parse=image,
        anchor=_image_text,
        default="debian:trixie",
        allowed="a path, an http(s):// address, debian:SUITE, or none (no disk)",
        help="the base image, never written to",
    ),
    Option(
        name="image_sha256",
        parse=sha256,
        allowed="64 hexadecimal digits",
        help="the digest of an image that is an address",
    ),
    Option(
        name="packages",
        parse=texts,
        default=(),
        many=True,
        allowed="names, with commas or new lines between them",
        help="further packages in an image debian:SUITE",
    ),
    Option(
        name="kernel",
        parse=text,
        anchor=_path_text,
        allowed="a path",
        help="a kernel that boots directly, with an image that is no debian:SUITE",
    ),
    Option(name="initrd", parse=text, anchor=_path_text, allowed="a path", help="the initrd for the kernel"),
    Option(name="cmdline", parse=text, allowed="text", help="the kernel's command line"),
    Option(
        name="memory",
        parse=size(MEMORY_MIB_FLOOR),
        default=512,
        allowed=f"MiB, or with a unit as in 2G, from {MEMORY_MIB_FLOOR} MiB on",
        help="the machine's memory",
    ),
    Option(
        name="cpus",
        parse=number(1, CPUS_CEILING),
        allowed=f"a whole number from 1 to {CPUS_CEILING}; none: 2, or 1 where QEMU emulates no more reliably",
        help="the machine's virtual processors",
    ),
    _choice("network", get_args(Network), "user", "what the machine reaches"),
    Option(
        name="uri",
        parse=text,
        allowed="a libvirt URI, e.g. qemu:///session",
        help="the libvirt that runs the machines, if not the one that fits the user",
    ),
    _choice("accel", get_args(Accel), "auto", "how the machine's processors run"),
    _choice("channel", get_args(ChannelName), "shell", "how commands reach the machine"),
    _choice("revert", get_args(Revert), "always", "when a test gets a clean machine"),
    _choice("missing", get_args(Missing), "fail", "what becomes of VM tests where no VM can run"),
    Option(
        name="standby",
        parse=number_or_auto(0, STANDBY_CEILING),
        allowed=f"a whole number from 0 to {STANDBY_CEILING}; auto or none: by processors and free memory",
        help="how many machines are made ahead, for the tests to come",
    ),
    _choice(
        "entropy",
        get_args(Entropy),
        "require",
        "what becomes of a state whose machines cannot be given random numbers of their own",
    ),
    _choice("verify", get_args(Verify), "none", "what is proved of each machine that is handed over"),
    Option(
        name="timeout",
        parse=positive,
        default=60.0,
        allowed="seconds above 0",
        help="the time that one command in the machine may take",
    ),
    Option(
        name="timeout_factor",
        parse=positive_or_none,
        allowed="a number above 0; none: 1 under KVM, more under TCG",
        help="a factor on every deadline",
    ),
    Option(
        name="output_limit",
        parse=size(1),
        default=64,
        allowed="MiB, or with a unit as in 1G",
        help="how much of a command's output, or of a file that is read, is kept in memory; more is an error",
    ),
    _choice("order", get_args(Order), "state", "whether tests of the same state run one after another"),
    Option(
        name="store",
        parse=text,
        anchor=_path,
        allowed="a directory; none: the user's cache directory",
        help="where images and snapshots are kept",
    ),
    Option(
        name="store_limit",
        parse=size(1),
        default=20480,
        allowed="MiB, or with a unit as in 20G",
        help="how large the snapshots that outlive a run may grow",
    ),
    Option(
        name="refresh",
        parse=switch,
        default=False,
        allowed="on or off",
        help="build every state that is used anew",
        command_line_only=True,
        switch=True,
    ),
    Option(
        name="refresh_state",
        parse=texts,
        default=(),
        many=True,
        allowed="names, with commas between them or one at a time",
        help="states that are built anew, with those that start from them",
        command_line_only=True,
    ),
    Option(
        name="console_user",
        parse=text,
        allowed="a user of the guest; none: only a shell that runs there is used",
        help="who logs in on the serial console, where the shell can be planted by no other way",
    ),
    Option(
        name="console_password",
        parse=text,
        allowed="a password",
        help="the password of that user",
        secret=True,
    ),
    Option(
        name="ssh_user",
        parse=text,
        allowed="a user of the guest, with sudo where it is not root; none: root",
        help="who logs in by SSH",
    ),
    Option(
        name="ssh_key",
        parse=text,
        anchor=_path,
        allowed="a private key that the image lets in; none: one is made, kept in the store, and planted",
        help="the key for SSH",
    ),
    _choice("artifacts", get_args(Artifacts), "failed", "of which tests what their machines can say is kept"),
    Option(
        name="artifacts_dir",
        parse=text,
        anchor=_path,
        default=Path("vmsnap-artifacts"),
        allowed="a directory",
        help="where that is kept, in a directory for each test",
    ),
    Option(
        name="keep",
        parse=number_or_failed,
        default=0,
        allowed="failed, or a number: the first so many of them",
        help="the machines of failed tests that are kept, for `vmsnap open`",
        command_line_only=True,
    ),
    Option(
        name="keep_limit",
        parse=size(1),
        default=5120,
        allowed="MiB, or with a unit as in 5G",
        help="how large the kept machines may grow together; the oldest goes first",
    ),
    Option(
        name="keep_days",
        parse=number(1, None),
        default=14,
        allowed="a whole number from 1 on",
        help="how many days a kept machine stays",
    ),
    Option(
        name="pause",
        parse=switch,
        default=False,
        allowed="on or off",
        help="hold the machine of a failed test alive, and say how to get in",
        command_line_only=True,
        switch=True,
    ),
    Option(
        name="timings",
        parse=switch,
        default=False,
        allowed="on or off",
        help="show what building and reverting took, by state and by test",
        command_line_only=True,
        switch=True,
    ),
)

BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}


def resolve(
    command_line: Mapping[str, object],
    environment: Mapping[str, str],
    ini: Mapping[str, object],
    root: Path,
    *,
    cwd: Path | None = None,
) -> Settings:
    """The settings of the three sources: command line over environment over configuration file over default.

    `command_line` and `ini` have values by `Option.key`, None where there is none; a variable that is empty
    counts as not set. Paths on the command line and in the environment are relative to `cwd` (if None, to
    `root`), those in the configuration file to `root`.

    Raises `OptionError` for what is not allowed, naming the option as it was written; also for a variable
    whose name is nearly that of an option.
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
    _fit(values, origins, raw)
    return Settings(root=root, origins=origins, **values)


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
    return option.anchor(value, base) if option.anchor and value is not None else value


# Which option goes with which: each of the first needs the second to be such.
_COMPANIONS: tuple[tuple[str, str, Callable[[Any], bool], str], ...] = (
    ("image_sha256", "image", is_address, "goes with an image that is an http(s):// address"),
    ("packages", "image", is_debian, "goes with an image debian:SUITE"),
    ("kernel", "image", lambda value: not is_debian(value), "goes with an image that has none of its own"),
    ("initrd", "kernel", lambda value: value is not None, "goes with a kernel"),
    ("cmdline", "kernel", lambda value: value is not None, "goes with a kernel"),
    ("console_password", "console_user", lambda value: value is not None, "goes with a user"),
)
_STRENGTH: tuple[Origin, ...] = ("default", "ini", "environment", "command line")


def _fit(values: dict[str, Any], origins: dict[str, Origin], raw: Mapping[str, object]) -> None:
    """Refuse options that do not go together.

    One from a weaker source stands aside instead: a project's digest says nothing of the image that somebody
    names on the command line.
    """
    for name, principal, suits, words in _COMPANIONS:
        option = BY_NAME[name]
        if values[name] == option.default or suits(values[principal]):
            continue
        if _STRENGTH.index(origins[name]) < _STRENGTH.index(origins[principal]):
            values[name], origins[name] = option.default, origins[principal]
            continue
        other = _named(BY_NAME[principal], origins[principal], raw[principal])
        raise OptionError(f"{option.written(origins[name], raw[name])} {words}, not with {other}")
    if is_address(values["image"]) and values["image_sha256"] is None:
        raise OptionError(
            f"{_named(BY_NAME['image'], origins['image'], raw['image'])}: an address needs its digest, by "
            f"{_names('image_sha256')}",
            hint="its publisher lists it (often as SHA256SUMS beside the image); of a file that you trust, "
            "`sha256sum FILE` tells it",
        )
    if values["image"] is None and values["kernel"] is None:
        written = _named(BY_NAME["image"], origins["image"], raw["image"])
        raise OptionError(f"{written}: a machine without an image needs {_names('kernel')}")


def _named(option: Option, origin: Origin, raw: object) -> str:
    if origin == "default":
        return f"the default {option.name} ({_plain(raw) or 'none'})"
    return option.written(origin, raw)


def _names(name: str) -> str:
    option = BY_NAME[name]
    return f"{option.flag}, {option.variable} or {option.key}"


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def strangers(environment: Mapping[str, str]) -> list[str]:
    """The variables that are named as ours and are no option."""
    known = {option.variable for option in OPTIONS if not option.command_line_only}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def _check_variables(environment: Mapping[str, str]) -> None:
    """A variable that is nearly an option's name is a slip; others may be somebody's own."""
    known = [option.variable.removeprefix(PREFIX) for option in OPTIONS if not option.command_line_only]
    for name in strangers(environment):
        near = difflib.get_close_matches(name.removeprefix(PREFIX), known, cutoff=0.75)
        if near:
            names = ", ".join(PREFIX + match for match in near)
            raise OptionError(f"{name} in the environment is no option; near to it: {names}")


def changed(settings: Settings) -> Iterator[tuple[str, str, Origin]]:
    """Name, value as text and origin of each option that is not at its default; secrets are hidden."""
    for option in OPTIONS:
        value = getattr(settings, option.name)
        if value != option.default:
            yield option.name, _shown(option, value, settings.root), settings.origins[option.name]


def _shown(option: Option, value: object, root: Path) -> str:
    if option.secret:
        return "***"
    if option.anchor and isinstance(value, str | Path) and Path(value).is_relative_to(root):
        return str(Path(value).relative_to(root))
    return masked(_told(value))


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return _plain(value) or "none"


def native_table(path: Path | None) -> Mapping[str, object]:
    """pytest's own TOML table in the file `path` (pytest 9), whose values have types; empty without one.

    It is ``[tool.pytest]`` as in ``pyproject.toml``, or ``[pytest]`` as in ``pytest.toml``.
    """
    if path is None or path.suffix != ".toml":
        return {}
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    found: Mapping[str, object] = document.get("tool", {}).get("pytest") or document.get("pytest", {})
    return found
