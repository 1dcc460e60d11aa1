"""The directory of evidence: one for each test, never one that is somebody's own."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_vmsnap.evidence.pieces import Piece

INDEX = "evidence.json"  # what is ours in a directory: nothing else in it is touched
LONGEST = 150  # bytes of a name; file systems allow 255
IGNORE = "# made by pytest-vmsnap\n*\n"


class Archive:
    """Evidence below `root`, which is made when there is something to keep; `run` tells runs apart."""

    def __init__(self, root: Path, *, run: str) -> None:
        self._root = root
        self._run = run

    def write(self, test: str, pieces: Iterable[Piece], notes: Iterable[str]) -> Path:
        """Write `pieces` of the failure of `test`, and the `notes` of what could not be had.

        Returns the directory. What an earlier run left there of the same test is removed. Raises `OSError`
        where it cannot be written.
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
        for piece in pieces:
            (directory / piece.name).write_bytes(piece.data)
            index["files"] = sorted({*index["files"], piece.name})
        index["missing"] = list(dict.fromkeys([*index["missing"], *notes]))
        (directory / INDEX).write_text(json.dumps(index, indent=1) + "\n")
        return directory

    def _places(self, test: str) -> Iterator[Path]:
        """Where it could go: a name that reads as the test's, and one that no other test has."""
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
