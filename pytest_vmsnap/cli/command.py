"""The command line of `vmsnap`, which reads the same configuration as pytest."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.cli import (
    doctor,
    drop,
    export,
    flatten,
    images,
    import_,
    kept,
    lock,
    open_,
    prune,
    pull,
    push,
    share,
    states,
    verify,
)
from pytest_vmsnap.errors import VmsnapError
from pytest_vmsnap.plugin import settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vmsnap.model import Settings

VERBS = (
    *(open_, kept, drop, states, export, import_, flatten, prune, verify),
    *(images, push, pull, lock, share, doctor),
)
FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `vmsnap` with `arguments` (None: those of the process); returns its exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        settings, chosen.hooks = _configured(chosen)
        return int(chosen.run(settings, chosen))
    except VmsnapError as error:
        print(f"vmsnap: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return FAILED
    except BrokenPipeError:  # `vmsnap states | head`
        sys.stderr.close()
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"vmsnap: {where}{error.strerror or error}", file=sys.stderr)  # noqa: T201 - a command's output
        return FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vmsnap",
        description="Open, list, export, import, check and remove what pytest-vmsnap keeps: states, and "
        "machines of failed tests. Check whether this host can run machines. "
        "The configuration is that of pytest in the current directory.",
    )
    parser.add_argument("--store", metavar="DIR", help="the store to use instead of the configured one")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        summary = (verb.__doc__ or "").splitlines()[0]
        verb.add(verbs.add_parser(verb.NAME, help=summary, description=summary))
    return parser


def _configured(chosen: argparse.Namespace) -> tuple[Settings, Any]:
    """The settings and hooks that pytest would use here, with the conftests of the test that is named."""
    found: list[tuple[Settings, Any]] = []

    class Reader:
        @pytest.hookimpl(tryfirst=True)
        def pytest_cmdline_main(self, config: pytest.Config) -> int:
            found.append((settings_of(config), config.hook))
            return 0

    # stdout is for our output only, not for what a conftest prints. pytest warns that the plugin is already
    # imported, and a project may turn warnings into errors.
    arguments = ["--capture=no", "-W", "ignore"]
    if chosen.store:
        arguments.append(f"--vmsnap-store={chosen.store}")
    file = str(getattr(chosen, "machine_of", "")).partition("::")[0]
    if file.endswith(".py") and Path(file).is_file():
        arguments.append(file)
    with redirect_stdout(sys.stderr):
        status = pytest.main(arguments, plugins=[Reader()])
    if not found:
        raise SystemExit(int(status))  # pytest has printed why
    return found[0]
