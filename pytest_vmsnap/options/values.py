"""Parsers from what was written to an option's value. Each raises `ValueError` if it is not allowed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vmsnap.image.vendors import is_vendor_name
from pytest_vmsnap.model import Shard
from pytest_vmsnap.registry.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable


def text(value: object) -> str | None:
    """Return text without surrounding space; None if it is empty."""
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value.strip() or None


def text_or_none(value: object) -> str | None:
    """Return text without surrounding space; None if it is empty or ``none``."""
    found = text(value)
    return None if found == "none" else found


def texts(value: object) -> tuple[str, ...]:
    """Return the items of a list with commas or new lines between them."""
    items: list[str] = []
    for part in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(part, str):
            raise ValueError("not a text")
        items += [item.strip() for item in re.split(r"[,\n]", part) if item.strip()]
    if any(re.search(r"\s", item) for item in items):
        raise ValueError("a space within an item")
    return tuple(items)


def image(value: object) -> str | None:
    """Return a path, a URL, ``debian:SUITE`` or a vendor's name; None for ``none``."""
    found = text(value)
    if found is None or (":" in found and not (_is_name(found) or is_address(found) or _is_pathlike(found))):
        raise ValueError("no image")
    return None if found == "none" else found


def address(value: object) -> str | None:
    """Return a URL; None if it is empty."""
    found = text(value)
    if found is not None and not is_address(found):
        raise ValueError("no URL")
    return found


def registry(value: object) -> str | None:
    """Return the address of a repository, ``oci://HOST/REPOSITORY``; None if it is empty."""
    found = text(value)
    return found and str(parse_address(found))


def cpu_model(value: object) -> str:
    """Return the name of a processor, or ``host``; which names there are, only libvirt knows."""
    found = text(value)
    if found is None or not re.fullmatch(r"[A-Za-z0-9_.-]+", found):
        raise ValueError("no name")
    return found


def shard(value: object) -> Shard | None:
    """Return the shard that ``I/N`` means; None for an empty text."""
    found = text(value)
    if found is None:
        return None
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", found)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError("no shard")
    return Shard(index=int(match[1]), count=int(match[2]))


def sha256(value: object) -> str | None:
    """Return 64 hexadecimal digits, without a leading ``sha256:``; None if empty."""
    found = text(value)
    if found is None:
        return None
    found = found.lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", found):
        raise ValueError("no digest")
    return found


def number(low: int, high: int | None) -> Callable[[object], int]:
    """Return a parser of whole numbers from `low` to `high`."""

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
    """Return a parser of sizes in MiB, or with a unit of powers of 1024 (``2G``, ``2GB`` or ``2GiB``)."""
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
    """Return a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    found = float(value)
    if not 0 < found < math.inf:  # false for nan too
        raise ValueError("out of range")
    return found


def positive_or_none(value: object) -> float | None:
    """Return a number above 0; None for an empty text."""
    return None if isinstance(value, str) and not value.strip() else positive(value)


def number_or_auto(low: int, high: int) -> Callable[[object], int | None]:
    """Return a parser of whole numbers from `low` to `high`; ``auto`` and an empty text give None."""
    whole = number(low, high)

    def parse(value: object) -> int | None:
        return None if isinstance(value, str) and value.strip() in ("", "auto") else whole(value)

    return parse


def number_or_failed(value: object) -> int | Literal["failed"]:
    """Return a whole number from 0 on, or ``failed``."""
    return "failed" if value == "failed" else number(0, None)(value)


def switch(value: object) -> bool:
    """Return True or False; text is not allowed."""
    if not isinstance(value, bool):
        raise ValueError("neither on nor off")
    return value


def one_of(choices: tuple[str, ...]) -> Callable[[object], str]:
    """Return a parser of one of `choices`."""

    def parse(value: object) -> str:
        found = text(value)
        if found not in choices:
            raise ValueError("no such choice")
        return found

    return parse


def is_address(image: str | None) -> bool:
    """Return whether the image is a URL, and so is downloaded."""
    return image is not None and image.lower().startswith(("http://", "https://"))


def is_debian(image: str | None) -> bool:
    """Return whether the image is built on this host (``debian:SUITE``)."""
    return image is not None and re.fullmatch(r"debian:[a-z][a-z0-9-]*", image) is not None


def _is_name(image: str) -> bool:
    return is_debian(image) or is_vendor_name(image)


def _is_pathlike(image: str) -> bool:
    return image.startswith(("/", ".", "~"))


def path(value: str, base: Path) -> Path:
    return base / Path(value).expanduser()


def path_text(value: str, base: Path) -> str:
    return str(path(value, base))


def image_text(value: str, base: Path) -> str:
    return value if is_address(value) or _is_name(value) else path_text(value, base)
