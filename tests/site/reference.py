"""What of the reference is made from the code: pieces of Markdown, which pages of `docs/` include by name."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from pathlib import Path

import pytest_vmsnap
from pytest_vmsnap import errors, fixtures, hookspecs, selection
from pytest_vmsnap.cli import command
from pytest_vmsnap.image.vendors import vendors
from pytest_vmsnap.options import OPTIONS

ROOT = Path(__file__).parents[2]


def pieces() -> dict[str, str]:
    """Each piece by the name of its file."""
    return {
        "options.md": options(),
        "markers.md": markers(),
        "fixtures.md": fixtures_table(),
        "hooks.md": hooks(),
        "errors.md": errors_tree(),
        "vmsnap.md": commands(),
        "vendors.md": vendor_rows(),
    }


def options() -> str:
    """The table of options, a row for each."""
    rows = []
    for option in OPTIONS:
        others = ("", "") if option.command_line_only else (f"`{option.variable}`", f"`{option.key}`")
        rows.append([f"`{option.flag}`", *others, option.description])
    return _table(["command line", "environment", "configuration file", "what"], rows)


def markers() -> str:
    """The markers, with their signatures and what they mean."""
    return _table(
        ["marker", "meaning"],
        [[f"`{name}`", meaning] for name, _, meaning in (_.partition(": ") for _ in selection.marker_lines())],
    )


def vendor_rows() -> str:
    """A row for each vendor of images."""
    rows = [
        f"| `{vendor.examples_text.replace(', ', '`, `')}` | {vendor.title} | {vendor.algorithm.upper()}, "
        f"[source]({vendor.source}) |"
        for vendor in vendors().values()
    ]
    return "\n".join(rows) + "\n"


def fixtures_table() -> str:
    """The fixtures with their scopes, from their source: what pytest makes of a fixture has no public form."""
    rows = []
    for node in ast.parse(inspect.getsource(fixtures)).body:
        for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
            if "pytest.fixture" in ast.unparse(decorator):
                given = {word.arg: word.value for word in getattr(decorator, "keywords", [])}
                scope = ast.literal_eval(given["scope"]) if "scope" in given else "function"
                rows.append([f"`{node.name}`", scope, _one_line(ast.get_docstring(node) or "")])
    return _table(["fixture", "scope", "gives"], rows)


def hooks() -> str:
    """The hooks, with their docstrings."""
    parts = []
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction):
        if name.startswith("pytest_vmsnap_"):
            arguments = ", ".join(inspect.signature(function).parameters)
            parts.append(f"## `{name}({arguments})` {{#{name}}}\n\n{inspect.getdoc(function)}\n")
    return "\n".join(parts)


def errors_tree() -> str:
    """The tree of errors as the module draws it, and a section for each error, with an anchor of its name."""
    drawn = re.search(r"::\n\n(.*?)\n\n\S", errors.__doc__ or "", re.DOTALL)
    assert drawn, "errors.py draws its tree after a `::`"
    tree = inspect.cleandoc("\n" + drawn[1])
    parts = [f"```text\n{tree}\n```\n"]
    for name in pytest_vmsnap.__all__:
        kind = getattr(pytest_vmsnap, name)
        if isinstance(kind, type) and issubclass(kind, errors.VmsnapError):
            text = re.sub(r"``(.*?)``", r"`\1`", inspect.getdoc(kind) or "")
            text = re.sub(r"\s*\bRemedy:\s+", "\n\n**Remedy:** ", text)
            text = re.sub(r"\bCause:\s+", "**Cause:** ", text)
            parts.append(f"## `{name}` {{#{name}}}\n\n{text}\n")
    return "\n".join(parts)


def commands() -> str:
    """The command `vmsnap` and each of its verbs, as ``--help`` shows them."""
    parser = command._parser()
    parts = [_help(parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, verb in action.choices.items():
                parts.append(f"## `vmsnap {name}` {{#{name}}}\n\n{_help(verb)}")
    return "\n".join(parts)


def _help(parser: argparse.ArgumentParser) -> str:
    parser.color = False  # Python 3.14 has colours where the terminal has
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=92)  # type: ignore[assignment]
    return f"```text\n{parser.format_help().strip()}\n```\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        + "\n"
    )
