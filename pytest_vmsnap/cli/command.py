"""The command line of `vmsnap`, and the configuration that it shares with pytest."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.cli import doctor, export, flatten, import_, prune, states
from pytest_vmsnap.errors import VmsnapError
from pytest_vmsnap.plugin import settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.model import Settings

VERBS = (states, export, import_, flatten, prune, doctor)
FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, None for the process's own; returns its exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.run(_settings(chosen.store), chosen))
    except VmsnapError as error:
        print(f"vmsnap: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return FAILED
    except BrokenPipeError:  # `vmsnap states | head`
        sys.stderr.close()
        return FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vmsnap",
        description="The states that pytest-vmsnap keeps: look at them, take them elsewhere, remove them; "
        "and what it finds on this host. "
        "What is configured is read as pytest reads it, from the directory that you are in.",
    )
    parser.add_argument("--store", metavar="DIR", help="the store, if not the configured one")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        summary = (verb.__doc__ or "").splitlines()[0]
        verb.add(verbs.add_parser(verb.NAME, help=summary, description=summary))
    return parser


def _settings(store: str | None) -> Settings:
    """The settings that pytest would have here."""
    found: list[Settings] = []

    class Reader:
        @pytest.hookimpl(tryfirst=True)
        def pytest_cmdline_main(self, config: pytest.Config) -> int:
            found.append(settings_of(config))
            return 0

    # What a conftest prints is none of our output. A project may make errors of warnings, and pytest warns that
    # we are imported already.
    arguments = ["--capture=no", "-W", "ignore", *([f"--vmsnap-store={store}"] if store else [])]
    with redirect_stdout(sys.stderr):
        status = pytest.main(arguments, plugins=[Reader()])
    if not found:
        raise SystemExit(int(status))  # pytest has said why
    return found[0]
