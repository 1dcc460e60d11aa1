"""The CI recipes of the example, read as runners read them: steps with a script each. And the tutorial."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..documents import Command, blocks, commands
from ..registry_server import PASSWORD, USER

TUTORIAL = "docs/tutorial/first-test.md"
INSTALLS = re.compile("(apt-get|pip) install ")
BEGIN, END = "=== begin {} ===", "=== end {} ==="
# What a person's machine has done before, and what they answer.
PERSON = """\
set -e
echo 'APT::Get::Assume-Yes "true";' | sudo tee /etc/apt/apt.conf.d/90yes
sudo apt-get update
"""
RUNNER_HOME = "/home/runner"  # of a hosted runner's user; see `root`
RUNNER_WORK = f"{RUNNER_HOME}/work"  # where it checks projects out
GITLAB_REGISTRY = "registry.gitlab.com"
CI = Path(__file__).parents[2] / "example_project" / "ci"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A `script` for bash, run in the directory `cwd` if not in the project's."""

    name: str
    script: str
    cwd: str | None = None

    @property
    def installs(self) -> bool:
        return bool(INSTALLS.search(self.script))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a runner does, as `user` in a checkout at `project`: steps in their order, until one fails.

    `store` are the paths that outlive the job, `results` those that it uploads; relative ones to `project`.
    `registry` is the one that it uses; with `docker_login` an action of docker's logs it in. `confined`: with
    no more capabilities than a container has. `shown` are commands whose output is compared: what the one of
    number N prints stands between `BEGIN` and `END` of N, and behind that its status. `installing` are the
    first steps, up to the last that installs something, where jobs have them in common.
    """

    user: str
    project: str
    environment: dict[str, str]
    steps: list[Step]
    store: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    registry: str | None = None
    docker_login: bool = False
    confined: bool = False
    shown: list[Command] = field(default_factory=list)
    installing: list[Step] = field(default_factory=list)


def github(text: str, *, shard: int, event: str = "push") -> Recipe:
    """The job `tests` for one shard of its matrix, as `event` starts it.

    Of its actions only what they are given is read. Raises `ValueError` for an expression that is not known.
    """
    job = yaml.safe_load(text)["jobs"]["tests"]
    project = f"{RUNNER_WORK}/notesd"
    known = {
        "github.workspace": project,
        "github.repository": "team/notesd",
        "github.event_name == 'push' && '--vmsnap-push' || ''": "--vmsnap-push" if event == "push" else "",
        "matrix.shard": str(shard),
    }

    def filled(written: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match[1] not in known:
                raise ValueError(f"no value for {match[0]}")
            return known[match[1]]

        return re.sub(r"\$\{\{ *(.*?) *\}\}", value, written)

    assert shard in job["strategy"]["matrix"]["shard"]
    actions = {step["uses"].split("@")[0]: step["with"] for step in job["steps"] if "with" in step}
    registry = actions.get("docker/login-action", {}).get("registry")
    steps = [
        Step(name=step["name"], script=f"set -e\n{filled(step['run'])}")
        for step in job["steps"]
        if "run" in step
    ]
    installed = max(number for number, step in enumerate(steps, 1) if step.installs)
    return Recipe(
        user="runner",
        project=project,
        environment={name: filled(str(value)) for name, value in job["env"].items()}
        | {"GITHUB_OUTPUT": "/tmp/github-output", "GITHUB_WORKSPACE": project},
        steps=steps,
        installing=steps[:installed],
        store=_lines(actions.get("actions/cache/restore", {}).get("path", "")),
        registry=registry,
        docker_login=bool(registry),
        results=_lines(actions["actions/upload-artifact"]["path"]),
    )


def gitlab(text: str, *, shard: int) -> Recipe:
    """The job `tests` of the default branch, for one shard, as root in a container of its image."""
    job = yaml.safe_load(text)["tests"]
    project = "/builds/notesd"
    known = {
        "CI_PROJECT_DIR": project,
        "CI_REGISTRY": GITLAB_REGISTRY,
        "CI_REGISTRY_IMAGE": f"{GITLAB_REGISTRY}/team/notesd",
        "CI_REGISTRY_USER": USER,
        "CI_REGISTRY_PASSWORD": PASSWORD,
        "CI_NODE_INDEX": str(shard),
        "CI_NODE_TOTAL": str(job["parallel"]),
    }
    written = {
        name: re.sub(r"\$(\w+)", lambda found: known[found[1]], str(value))
        for name, value in (job["variables"] | job["rules"][0]["variables"]).items()
    }
    artifacts = job["artifacts"]
    return Recipe(
        user="root",
        project=project,
        environment=known | written,
        steps=[
            Step(
                name="before_script, script",  # in one shell
                script="\n".join(["set -eo pipefail", *job["before_script"], *job["script"]]),
            )
        ],
        registry=GITLAB_REGISTRY,
        results=[artifacts["reports"]["junit"], *artifacts["paths"]],
        confined=True,
    )


def container(text: str) -> Recipe:
    """The building of the image, and the run of its command with the project mounted, as root.

    Raises `ValueError` for an instruction that is not known here.
    """
    environment: dict[str, str] = {}
    steps: list[Step] = []
    place = "/"
    for line in re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines():
        word, _, rest = line.partition(" ")
        if word == "RUN":
            steps.append(Step(name=f"RUN {rest[:40]}…", script=f"set -e\n{rest}", cwd=place))
        elif word == "COPY":
            source, target = shlex.split(rest)
            steps.append(Step(name=line, script=f"cp -r {shlex.quote(source)} {shlex.quote(target)}"))
        elif word == "ENV":
            environment |= dict(item.split("=", 1) for item in shlex.split(rest))
        elif word == "WORKDIR":
            place = rest
        elif word == "CMD":
            steps.append(Step(name=line, script=shlex.join(json.loads(rest)), cwd=place))
        elif word and word != "FROM":
            raise ValueError(f"{line}: not known here")
    store = [f"{environment['VMSNAP_STORE']}/{name}" for name in ("format", "images", "states")]  # the volume
    return Recipe(user="root", project=place, environment=environment, steps=steps, store=store, confined=True)


def tutorial() -> Recipe:
    """The tutorial, from nothing: its files and its commands in their order, in one shell."""
    lines: list[str] = []
    shown: list[Command] = []
    for block in blocks(TUTORIAL):
        if block.title:
            lines.append(f"cat >{shlex.quote(block.title)} <<'END OF FILE'\n{block.text}END OF FILE")
        for command in commands(block) if block.language == "console" else []:
            number = len(shown)
            lines += [f"echo '{BEGIN.format(number)}'", command.text, f'echo "{END.format(number)} $?"']
            shown.append(command)
    return Recipe(
        user="runner",
        project=RUNNER_HOME,
        environment={},
        steps=[
            Step(name="what a person has done before", script=PERSON),
            Step(name="the tutorial", script="\n".join(lines)),
        ],
        shown=shown,
    )


def read(name: str, **shard: Any) -> Recipe:
    """The recipe `name`: github, github-registry, gitlab, container or tutorial."""
    if name == "tutorial":
        return tutorial()
    if name == "container":
        return container((CI / "Containerfile").read_text())
    readers = {"github": github, "github-registry": github, "gitlab": gitlab}
    return readers[name]((CI / f"{name}.yml").read_text(), **shard)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
