"""The directories of artifacts: one for each test. Directories of others stay untouched."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_vmsnap.evidence.artifact import Artifact

INDEX = "evidence.json"  # lists our files in a directory; others are not touched
LONGEST = 150  # bytes of a directory's name; file systems allow 255
IGNORE = "# made by pytest-vmsnap\n*\n"


class Archive:
    """Artifacts below `root`, which is created when there is something to write; `run` identifies the run."""

    def __init__(self, root: Path, *, run: str) -> None:
        self._root = root
        self._run = run

    def write(self, test: str, artifacts: Iterable[Artifact], notes: Iterable[str]) -> Path:
        """Write the `artifacts` of `test`, and the `notes` on what could not be collected.

        Returns the directory. Files of the same test from an earlier run are removed. Raises `OSError` if
        something cannot be written.
        """
        with suppress(FileExistsError):
            self._root.mkdir(parents=True)
            (self._root / ".gitignore").write_text(IGNORE)
        directory = next(place for place in self._places(test) if _may_have(place, test))
        directory.mkdir(exist_ok=True)
        index = _read(directory)
        if index.get("run") != self._run:
            for name in index.get("files", ()):
                (directory / Path(name).name).unlink(missing_ok=True)
            index = {"test": test, "run": self._run, "files": [], "missing": []}
        for artifact in artifacts:
            (directory / artifact.name).write_bytes(artifact.data)
            index["files"] = sorted({*index["files"], artifact.name})
        index["missing"] = list(dict.fromkeys([*index["missing"], *notes]))
        (directory / INDEX).write_text(json.dumps(index, indent=1) + "\n")
        return directory

    def _places(self, test: str) -> Iterator[Path]:
        """Yield possible directories: one that is named like the test, then ones that no other test has."""
        name = re.sub(r"[^\w.\[\]=-]+", "-", test.replace("::", "-")).strip("-.")
        mark = hashlib.sha256(test.encode()).hexdigest()[:8]
        if len(name.encode()) <= LONGEST:
            yield self._root / name
        short = name.encode()[:LONGEST].decode(errors="ignore")
        yield self._root / f"{short}-{mark}"
        number = 2
        while True:
            yield self._root / f"{short}-{mark}-{number}"
            number += 1


def _may_have(place: Path, test: str) -> bool:
    return not place.exists() or _read(place).get("test") == test


def _read(directory: Path) -> dict[str, Any]:
    try:
        found = json.loads((directory / INDEX).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
