"""The first test of a run over a store that has its state; `__main__.py` notes how long that takes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap import Machine


def test_first(vm: Machine) -> None:
    vm.succeed("true")
    Path(os.environ["VMSNAP_BENCH_RESULTS"]).write_text(str(time.time()))
