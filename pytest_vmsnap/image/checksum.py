"""The checksum of a file, as distributions publish them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

Algorithm = Literal["sha256", "sha512"]
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
