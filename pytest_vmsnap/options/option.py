"""One option: its names, its value, its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import VmsnapError
from pytest_vmsnap.model.settings import masked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vmsnap.model import Origin

PREFIX = "VMSNAP_"


class OptionError(VmsnapError):
    """An option has a value that is not allowed, or does not go together with another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A row of the table.

    `parse` turns what was written (text, or a value of a TOML file) into the value; it raises `ValueError`.
    `allowed` describes the allowed values. `make_absolute` makes a path in the value absolute, given the
    directory that it is relative to. `multiple` is a list, repeatable on the command line. A `secret` is never
    shown. A `switch` takes no value on the command line: its name turns it on.
    """

    name: str
    parse: Callable[[object], Any]
    help: str
    allowed: str
    default: Any = None
    make_absolute: Callable[[str, Path], Any] | None = None
    multiple: bool = False
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
        """The name in the configuration file, and in argparse's namespace."""
        return f"vmsnap_{self.name}"

    @property
    def description(self) -> str:
        """The help, with the allowed values and the default."""
        allowed = "" if self.switch else f": {self.allowed}"
        where = "command line only; " if self.command_line_only else ""
        return f"{self.help}{allowed} ({where}default: {shown(self.default)})"

    @property
    def argument(self) -> dict[str, Any]:
        """The keyword arguments for pytest's `addoption`, which argparse gets."""
        words = {"dest": self.key, "default": None, "help": self.description.replace("%", "%%")}
        if self.switch:
            return words | {"action": "store_true"}
        metavar = self.name.rpartition("_")[2].upper()
        return words | {"action": "append" if self.multiple else "store", "metavar": metavar}

    def written(self, origin: Origin, value: object) -> str:
        """Return name and value as the user wrote them, secrets masked."""
        text = "***" if self.secret else masked(plain(value))
        if origin == "ini":
            return f"{self.key} = {text} (configuration file)"
        return f"{self.flag if origin == 'command line' else self.variable}={text}"


def plain(value: object) -> str:
    """Return a value as it is written in a source."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def shown(value: object) -> str:
    """Return a value as it is shown to the user."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return plain(value) or "none"
