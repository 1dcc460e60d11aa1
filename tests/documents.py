"""The code blocks of the documentation, as what a reader does with them: files to write, commands to run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
FENCE = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]*)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block; `title` is the file that it is, empty where none is said."""

    language: str
    title: str
    text: str


@dataclass(slots=True, kw_only=True)
class Command:
    """A command of a console block, and the lines that are `shown` below it."""

    text: str
    shown: list[str] = field(default_factory=list)

    def missing_in(self, output: str) -> str | None:
        """The first line shown that `output` has not, in the order shown; ``…`` stands for anything.

        A line need only be part of the one that was printed, and spaces count as one.
        """
        printed = iter(output.splitlines())
        for line in self.shown:
            words = [re.escape(word) for word in line.split()]
            pattern = r"\s+".join(words).replace("…", ".*")
            if not any(re.search(pattern, each) for each in printed):
                return line
        return None


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The blocks of a page (its path in the project) in their order, or those of one `language`."""
    found = [
        Block(language=match["language"], title=match["title"] or "", text=match["text"])
        for match in FENCE.finditer((ROOT / page).read_text())
    ]
    return [block for block in found if language in (None, block.language)]


def commands(block: Block) -> list[Command]:
    """The commands of a console block: what follows a ``$``, with the lines that it goes on in."""
    found: list[Command] = []
    for line in block.text.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            found.append(Command(text=re.sub(r"\s+", " ", line[2:].partition("    #")[0]).strip()))
        elif line:
            found[-1].shown.append(line)
    return found


def files(block: Block) -> dict[str, str]:
    """A Python block that is several files, each after a comment with its name; without one, all is ``""``."""
    parts = re.split(r"^# (\S+\.py)$\n", block.text, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return found | ({"": parts[0]} if parts[0].strip() else {})


def packages(command: str) -> set[str]:
    """The packages that an ``apt-get install`` names."""
    words: Sequence[str] = command.split()
    return {word for word in words[words.index("install") + 1 :] if not word.startswith("-")}
