"""The checksum of a file, as distributions publish them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from pytest_vmsnap.errors import StoreDamaged
from pytest_vmsnap.model import digest

if TYPE_CHECKING:
    from pathlib import Path

Algorithm = Literal["sha256", "sha512"]
DISK, META = "disk", "meta.json"  # of a downloaded image's entry in the store
DIGITS: dict[Algorithm, int] = {"sha256": 64, "sha512": 128}  # hexadecimal


@dataclass(frozen=True, slots=True)
class Checksum:
    """A digest, in lower-case hexadecimal digits, and the algorithm that it was made with."""

    algorithm: Algorithm
    digest: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """The checksum in ``ALGORITHM:DIGITS``; raises `ValueError` if it is not one."""
        name, _, digits = text.strip().lower().partition(":")
        for algorithm, count in DIGITS.items():
            if name == algorithm and re.fullmatch(rf"[0-9a-f]{{{count}}}", digits):
                return cls(algorithm, digits)
        raise ValueError(f"{text!r} is not sha256: with 64 hexadecimal digits, or sha512: with 128")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"

    @property
    def key(self) -> str:
        """The key of the store's entry for a file with this checksum."""
        return digest({"kind": "download", self.algorithm: self.digest})

    def fits(self, path: Path) -> bool:
        """Whether the file at `path` has this checksum; reads all of it."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest() == self.digest


def expect_own_checksum(entry: Path, key: str) -> None:
    """Prove that the downloaded image in the directory `entry` is the one that its `key` is made from.

    Raises `StoreDamaged` if it is not.
    """
    try:
        found = json.loads((entry / META).read_text())
        checksums = [Checksum(algorithm, str(found[algorithm])) for algorithm in DIGITS if algorithm in found]
    except (OSError, ValueError, TypeError) as error:
        raise StoreDamaged(f"{entry / META} cannot be read: {error}") from error
    if not any(checksum.key == key and checksum.fits(entry / DISK) for checksum in checksums):
        raise StoreDamaged("it is not the image with the checksum that was asked for")
