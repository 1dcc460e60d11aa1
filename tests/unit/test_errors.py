"""The tree of errors: what they say, and that xdist can send them."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap import errors
from pytest_vmsnap.errors import CommandError, VmsnapError
from pytest_vmsnap.model import Result

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULT = Result(command="make", returncode=2, signal=None, stdout=b"out\xff\n", stderr=b"err\n", duration=0.5)


def tree(kind: type[VmsnapError]) -> Iterator[type[VmsnapError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from tree(below)


# those of errors.py; other modules may have their own below them
KINDS = sorted(
    {kind for kind in tree(VmsnapError) if kind.__module__ == errors.__name__}, key=lambda kind: kind.__name__
)


def made(kind: type[VmsnapError]) -> VmsnapError:
    """An error of `kind` with every field that it takes."""
    if issubclass(kind, CommandError):
        return kind("make failed", result=RESULT)
    fields: dict[str, Any] = {"hint": "do this"}
    for name in ("console", "log", "detail"):
        if name in vars(kind("")):
            fields[name] = f"the {name}"
    return kind("it went wrong", **fields)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling_with_its_fields_and_message(kind: type[VmsnapError]) -> None:
    error = made(kind)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert str(again) == str(error)
    assert str(copy.copy(error)) == str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_all_that_it_has(kind: type[VmsnapError]) -> None:
    error = made(kind)
    for value in vars(error).values():
        if isinstance(value, str):
            assert value in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_of_the_module_draws_every_error(kind: type[VmsnapError]) -> None:
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__


def test_time_outs_are_time_out_errors() -> None:
    assert issubclass(errors.CommandTimeout, TimeoutError)
    assert issubclass(errors.WaitTimeout, TimeoutError)


def test_outcomes_of_commands_are_assertion_errors() -> None:
    assert issubclass(errors.CommandFailed, AssertionError)
    assert issubclass(errors.CommandSucceeded, AssertionError)


def test_a_failed_command_shows_both_streams() -> None:
    assert str(made(errors.CommandFailed)) == "make failed\nstdout:\n  out�\nstderr:\n  err"


def test_of_long_output_the_end_is_shown() -> None:
    output = "".join(f"line {number}\n" for number in range(1000)).encode()
    result = Result(command="x", returncode=1, signal=None, stdout=output, stderr=b"", duration=0.1)
    message = str(errors.CommandFailed("x failed", result=result))
    assert message.endswith("  line 999")
    assert "line 10\n" not in message
    assert "stderr" not in message


def test_a_boot_without_a_word_on_the_console_says_so() -> None:
    assert str(errors.BootError("no answer")) == "no answer\nthe console is empty"
