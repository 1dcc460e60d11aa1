"""Run code that a run uses, and turn the error that it raises into a finding."""

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
    """Return the result of `action`, None if it fails, and the finding; `told` describes the result."""
    try:
        found = action()
        return found, ok(name, told(found))
    except VmsnapError as error:
        return None, Finding(name=name, status="failure", found=error.message, advice=error.hint)
    except OSError as error:
        return None, Finding(name=name, status="failure", found=str(error))


def asked(name: str, question: Callable[[], str]) -> Finding:
    """Return the finding of a `question` whose answer is only text to show."""
    return tried(name, question, str)[1]
