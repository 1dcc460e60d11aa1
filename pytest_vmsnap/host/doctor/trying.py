"""A check that uses what a run uses: what it raises is the finding, message and hint."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pytest_vmsnap.errors import VmsnapError
from pytest_vmsnap.model import Finding, ok

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def tried(
    name: str, action: Callable[[], T], told: Callable[[T], str]
) -> tuple[T, Finding] | tuple[None, Finding]:
    """What `action` gives, None where it fails, and the finding: `told` says of what it gave."""
    try:
        found = action()
        return found, ok(name, told(found))
    except VmsnapError as error:
        return None, Finding(name=name, status="failure", found=error.message, advice=error.hint)
    except OSError as error:
        return None, Finding(name=name, status="failure", found=str(error))


def asked(name: str, question: Callable[[], str]) -> Finding:
    """The finding of a `question` whose answer is for the reader alone."""
    return tried(name, question, str)[1]
