"""The files of checksums that vendors publish.

Their formats: GNU coreutils (``DIGITS  NAME`` or ``DIGITS *NAME``, sha256sum(1)), BSD (``SHA256 (NAME) =
DIGITS``, ``sha256sum --tag``), and the digits alone. There may be comments, and an OpenPGP signature around it
(RFC 9580, "Cleartext Signature Framework").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_vmsnap.image.checksum import DIGITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_vmsnap.image.checksum import Algorithm


def parse_sums(text: str, algorithm: Algorithm) -> Mapping[str, str]:
    """The digests of `algorithm` in `text`, by file name; the name is empty for digits alone.

    A name never has a directory: what is before it is left out.
    """
    digits = rf"(?P<digits>[0-9a-fA-F]{{{DIGITS[algorithm]}}})"
    line_forms = (
        rf"{digits} [ *](?:.*/)?(?P<name>\S+)",
        rf"{algorithm.upper()} ?\((?:.*/)?(?P<name>[^/)]+)\) ?= ?{digits}",
        rf"{digits}(?P<name>)",
    )
    found = {}
    for line in text.splitlines():
        for form in line_forms:
            if match := re.fullmatch(form, line.strip()):
                found[match["name"]] = match["digits"].lower()
                break
    return found
