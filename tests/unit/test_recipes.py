"""The CI recipes of the example are what their runners take, and say the same where they must."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ..documents import packages
from ..recipes import recipes
from .test_docs import installed_by_the_example

if TYPE_CHECKING:
    from collections.abc import Callable

GITHUB = (recipes.CI / "github.yml").read_text()
GITHUB_REGISTRY = (recipes.CI / "github-registry.yml").read_text()
GITLAB = (recipes.CI / "gitlab.yml").read_text()
CONTAINER = (recipes.CI / "Containerfile").read_text()


def checked(*command: str) -> subprocess.CompletedProcess[str]:
    """What a program of this environment says."""
    program = Path(sys.executable).parent / command[0]
    return subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)


def actionlint(path: Path) -> subprocess.CompletedProcess[str]:
    return checked("actionlint", "-no-color", str(path))


def github_schema(path: Path) -> subprocess.CompletedProcess[str]:
    return checked("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(path))


def gitlab_schema(path: Path) -> subprocess.CompletedProcess[str]:
    transformed = ("--data-transform", "gitlab-ci")
    return checked("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", *transformed, str(path))


CHECKS: list[Any] = [
    pytest.param(actionlint, GITHUB, ("matrix.shard", "matrix.shart"), id="actionlint"),
    pytest.param(
        github_schema, GITHUB, ("timeout-minutes: 30", "timeout-minuets: 30"), id="the schema of GitHub"
    ),
    pytest.param(actionlint, GITHUB_REGISTRY, ("github.actor", "github.acter"), id="actionlint, registry"),
    pytest.param(gitlab_schema, GITLAB, ("when: always", "when: sometimes"), id="the schema of GitLab"),
]


@pytest.mark.parametrize(("check", "text", "fault"), CHECKS)
def test_a_recipe_passes_its_check_and_would_not_with_a_fault(
    check: Callable[[Path], subprocess.CompletedProcess[str]], text: str, fault: tuple[str, str], tmp_path: Path
) -> None:
    (sound := tmp_path / "sound.yml").write_text(text)
    done = check(sound)
    assert done.returncode == 0, done.stdout + done.stderr

    assert fault[0] in text
    (broken := tmp_path / "broken.yml").write_text(text.replace(*fault))
    assert check(broken).returncode == 1


@pytest.mark.parametrize("name", ["github", "github-registry", "gitlab", "container"])
def test_a_recipe_installs_the_packages_that_the_example_does(name: str) -> None:
    shard = {} if name == "container" else {"shard": 1}
    scripts = "\n".join(step.script for step in recipes.read(name, **shard).steps).replace("\\\n", " ")
    (line,) = re.findall(r"(apt-get install [^\n&]*)", scripts)
    assert packages(line) | {"python3"} == installed_by_the_example()


@pytest.mark.parametrize("text", [GITHUB, GITHUB_REGISTRY])
def test_each_job_of_github_runs_one_of_the_shards(text: str) -> None:
    job = yaml.safe_load(text)["jobs"]["tests"]
    (count,) = re.findall(r"--vmsnap-shard=\$\{\{ matrix.shard \}\}/(\d+)", text)
    assert job["strategy"]["matrix"]["shard"] == list(range(1, int(count) + 1))
    assert f"of {count}" in job["name"]


def test_what_github_saves_of_the_store_is_what_it_restores() -> None:
    job = yaml.safe_load(GITHUB)["jobs"]["tests"]
    paths = {step["uses"]: step["with"]["path"] for step in job["steps"] if "cache" in step.get("uses", "")}
    assert len(paths) == 2
    assert len(set(paths.values())) == 1


def test_what_is_cached_is_within_the_store() -> None:
    recipe = recipes.github(GITHUB, shard=1)
    store = Path(recipe.environment["VMSNAP_STORE"]).relative_to(recipe.project)
    assert {Path(path).relative_to(store).name for path in recipe.store} == {"format", "images", "states"}


def test_the_key_of_githubs_cache_changes_with_the_host_and_with_the_project() -> None:
    steps = yaml.safe_load(GITHUB)["jobs"]["tests"]["steps"]
    (host,) = [step["run"] for step in steps if step.get("id") == "host"]
    for what in ("qemu-system-x86_64 --version", "virsh --version", "/proc/cpuinfo", "microcode"):
        assert what in host
    (key,) = [step["with"]["key"] for step in steps if step.get("id") == "store"]
    assert "steps.host.outputs.key" in key
    assert "hashFiles('pyproject.toml', 'tests/**', 'notesd/**')" in key


def test_only_a_push_to_main_pushes_states() -> None:
    assert yaml.safe_load(GITHUB_REGISTRY)[True]["push"] == {"branches": ["main"]}  # YAML 1.1's "on"
    pushes = {
        event: recipes.github(GITHUB_REGISTRY, shard=1, event=event).environment["PUSH"]
        for event in ("push", "pull_request")
    }
    assert pushes == {"push": "--vmsnap-push", "pull_request": ""}


def test_only_gitlabs_default_branch_pushes_states() -> None:
    job = yaml.safe_load(GITLAB)["tests"]
    pushes, others = job["rules"]
    assert pushes == {
        "if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH",
        "variables": {"PUSH": "--vmsnap-push"},
    }
    assert "variables" not in others
    assert "PUSH" not in job["variables"]


def test_an_expression_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"github\.sha"):
        recipes.github(GITHUB.replace("matrix.shard }}/2 --junit", "github.sha }}/2 --junit"), shard=1)


def test_an_instruction_of_a_containerfile_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="HEALTHCHECK"):
        recipes.container(CONTAINER + "HEALTHCHECK NONE\n")


def test_a_containers_lines_are_joined_and_its_command_is_run_where_it_says() -> None:
    steps = recipes.container(CONTAINER).steps
    assert all("\\\n" not in step.script for step in steps)
    assert (steps[-1].script, steps[-1].cwd) == ("/venv/bin/python -m pytest", "/project")
    assert json.loads(CONTAINER.rpartition("CMD ")[2])[0] == "/venv/bin/python"
