"""How long tests took before: ``.test_durations``, the file of pytest-split (``--store-durations``)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FILE = ".test_durations"


def recorded_durations(root: Path) -> dict[str, float]:
    """Seconds by node id, from the file in the project's `root`; empty without one.

    Raises `ValueError` if the file cannot be read.
    """
    try:
        found = json.loads((root / FILE).read_text())
        pairs = found.items() if isinstance(found, dict) else found  # a list of pairs in its first versions
        return {str(name): max(0.0, float(seconds)) for name, seconds in pairs}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{root / FILE} is not a file of recorded times: {error}") from error
