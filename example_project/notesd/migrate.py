#!/usr/bin/python3
"""Migrates the notes of release 1, which kept all of them in one file.

migrate.py OLD_RELEASE OLD_NOTES NEW_NOTES

It only reads the old notes. If it fails, the installer deletes the new ones.
"""

import json
import sys
from pathlib import Path


def main(release: str, old: Path, new: Path) -> None:
    if release != "1":
        sys.exit(f"release {release} cannot be upgraded to this one")
    for name, text in json.loads((old / "notes.json").read_text()).items():
        (new / f"{name}.note").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
