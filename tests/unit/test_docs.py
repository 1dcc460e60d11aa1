"""The documentation says what the code says, and leads to where it says it does."""

from __future__ import annotations

import itertools
import re
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import pytest_vmsnap
from pytest_vmsnap import selection
from pytest_vmsnap.cli import command
from pytest_vmsnap.options import OPTIONS

from ..documents import ROOT, Block, Command, blocks, commands, files, packages
from ..site import chart, pages, reference

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(ROOT)) for path in DOCS.rglob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def nav() -> list[str]:
    """The pages that the site's navigation names."""

    def leaves(node: Any) -> list[str]:
        if isinstance(node, str):
            return [node]
        return [leaf for child in (node.values() if isinstance(node, dict) else node) for leaf in leaves(child)]

    return leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])


def test_the_reference_has_every_option() -> None:
    text = reference.options()
    assert [option.flag for option in OPTIONS if f"| `{option.flag}` |" not in text] == []


def test_the_reference_has_every_marker_with_its_meaning() -> None:
    text = reference.markers()
    assert [line for line in selection.marker_lines() if line.partition(": ")[2] not in text] == []


def test_the_reference_has_every_fixture_with_its_scope() -> None:
    text = reference.fixtures_table()
    for fixture, scope in {
        **dict.fromkeys(["vm", "vm_factory"], "function"),
        "vm_class": "class",
        "vm_module": "module",
        **dict.fromkeys(["vm_session", "vm_spec", "vmsnap"], "session"),
    }.items():
        assert f"| `{fixture}` | {scope} |" in text


def test_the_reference_has_every_hook_with_its_arguments() -> None:
    assert "## `pytest_vmsnap_prepare(vm, spec)`" in reference.hooks()
    assert "## `pytest_vmsnap_domain_xml(domain, spec)`" in reference.hooks()


def test_the_reference_has_every_error() -> None:
    public = {name for name in pytest_vmsnap.__all__ if isinstance(getattr(pytest_vmsnap, name), type)}
    errors = {name for name in public if issubclass(getattr(pytest_vmsnap, name), Exception)}
    text = reference.errors_tree()
    tree = text.split("```")[1]
    assert {name for name in errors if name not in tree or f"## `{name}` {{#{name}}}" not in text} == set()


def test_the_reference_has_every_verb_with_its_arguments() -> None:
    text = reference.commands()
    assert [verb.NAME for verb in command.VERBS if f"usage: vmsnap {verb.NAME} " not in text] == []
    assert "--disk-only OUT.qcow2" in text


def test_each_piece_of_the_reference_is_in_a_page() -> None:
    included = {
        name
        for page in PAGES
        for name in re.findall(r'^--8<-- "(.*)"$', (ROOT / page).read_text(), re.MULTILINE)
    }
    assert set(reference.pieces()) - included == set()


def test_every_page_is_in_the_navigation_and_nothing_else() -> None:
    assert sorted(f"docs/{page}" for page in nav()) == PAGES


def test_the_drawing_of_the_subpackages_has_the_order_that_imports_are_checked_against() -> None:
    drawing = (ROOT / "CONTRIBUTING.md").read_text().partition("```text\n")[2].partition("```")[0]
    drawn = re.findall(r"\b([a-z]+)(?:/|\.py)", drawing)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    assert [sorted(layer.split(" : ")) for layer in layers] == [
        sorted(names) for names in grouped(drawn, [len(layer.split(" : ")) for layer in layers])
    ]


def grouped(names: list[str], sizes: list[int]) -> list[list[str]]:
    rest = iter(names)
    return [list(itertools.islice(rest, size)) for size in sizes]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_its_links_lead_somewhere(page: str) -> None:
    place = (ROOT / page).parent
    for link in LINK.findall((ROOT / page).read_text()):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (place / path) if path else ROOT / page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in [slug(heading) for heading in headings], link


def slug(heading: str) -> str:
    """What a repository's pages and the site both make of a heading."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-")


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_its_python_can_be_read_by_python(page: str) -> None:
    for block in blocks(page, "python"):
        compile(block.text, page, "exec")


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_its_configuration_has_options_that_there_are(page: str) -> None:
    keys = {option.key for option in OPTIONS}
    for block in blocks(page, "toml"):
        found = tomllib.loads(block.text)
        while "tool" in found or "pytest" in found or "ini_options" in found:
            found = found.get("tool") or found.get("pytest") or found["ini_options"]
        assert {key for key in found if key.startswith("vmsnap")} - keys == set()


def installed_by_the_example() -> set[str]:
    text = (ROOT / "example_project" / "install-requirements").read_text()
    return set(re.search(r"packages='(.*?)'", text, re.DOTALL)[1].split())  # type: ignore[index]


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial/first-test.md"])
def test_it_names_the_packages_that_the_example_installs(page: str) -> None:
    (named,) = [
        packages(command.text)
        for command in console(page)
        if re.match("sudo apt(-get)? install ", command.text)
    ]
    # gcc brings the C library's headers where recommended packages are installed; python3-venv brings python3
    assert installed_by_the_example() - named <= {"python3", "libc6-dev", "acl"}
    assert named <= installed_by_the_example()


def test_ci_runs_the_commands_of_the_readme() -> None:
    run = (ROOT / ".ci" / "run").read_text().splitlines()
    others = [command.text for command in console("README.md") if "install" not in command.text]
    assert others
    assert [command for command in others if command not in run] == []


def test_what_ci_leaves_out_are_tests() -> None:
    named = re.findall(r"(tests/\S+\.py)::(\w+)", (ROOT / ".ci" / "run").read_text())
    assert named
    assert [name for path, name in named if f"def {name}(" not in (ROOT / path).read_text()] == []


def console(page: str) -> list[Command]:
    return [command for block in blocks(page, "console") for command in commands(block)]


def test_what_is_shown_of_a_command_is_looked_for_in_its_order() -> None:
    (command,) = commands(Block(language="console", title="", text="$ run \\\n    it\nfirst … line\nsecond\n"))
    assert command.text == "run it"
    assert command.missing_in("before\n  first long   line [1]\nsecond\n") is None
    assert command.missing_in("second\nfirst long line\n") == "second"
    assert command.missing_in("second\n") == "first … line"


def test_a_block_of_several_files_is_taken_apart() -> None:
    block = Block(language="python", title="", text="# a.py\nA = 1\n# a comment\n\n# b.py\nB = 2\n")
    assert files(block) == {"a.py": "A = 1\n# a comment\n\n", "b.py": "B = 2\n"}


def test_a_link_that_leads_nowhere_and_what_is_loaded_from_elsewhere_are_faults(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "index.html").write_text('<h2 id="known">A</h2>')
    (tmp_path / "index.html").write_text(
        '<a href="there/#known">1</a><a href="there/#other">2</a><a href="gone/">3</a><a href="https://e.org/">4</a>'
        '<script src="//cdn.example.org/a.js"></script><img src="there/index.html">'
        '<script src="there/b.js"></script>'
    )
    assert list(pages.faults(tmp_path)) == [
        "index.html loads //cdn.example.org/a.js",
        "index.html loads there/b.js, which is not there",
        "index.html: gone/ leads nowhere",
        "index.html: there/#other leads nowhere",
    ]


def test_the_chart_shows_what_was_measured() -> None:
    assert chart.TARGET.read_text() == chart.draw(chart.MEASURED.read_text())
