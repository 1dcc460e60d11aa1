from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from pytest_vmsnap.host.run_directory import Run, sweep

if TYPE_CHECKING:
    from pathlib import Path

DIES = """
import os, pathlib, sys
from pytest_vmsnap.host.run_directory import Run
run = Run(pathlib.Path(sys.argv[1]))
(run.data / "file").write_text("left")
print(run.id, run.sockets, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_run_that_ends_leaves_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.data.stat().st_mode & 0o777 == 0o700
    assert run.sockets.stat().st_mode & 0o777 == 0o700
    run.close()
    run.close()
    assert list(tmp_path.iterdir()) == []
    assert not run.sockets.exists()


def test_the_sockets_directory_is_short_enough_for_a_socket(tmp_path: Path) -> None:
    run = Run(tmp_path)
    try:
        longest = f"{run.sockets}/lib/qemu/channel/target/domain-999-{run.domain_name('template')}"
        assert len(f"{longest[:90]}/org.qemu.guest_agent.0") < 108 + 20
        assert len(str(run.sockets)) <= 60
    finally:
        run.close()


def test_domains_of_a_run_have_names_of_their_own(tmp_path: Path) -> None:
    run = Run(tmp_path)
    try:
        names = {run.domain_name("vm") for _ in range(5)}
        assert len(names) == 5
        assert all(name.startswith(run.prefix) for name in names)
    finally:
        run.close()


def test_what_a_killed_run_left_is_swept_and_a_living_one_is_not(tmp_path: Path) -> None:
    alive = Run(tmp_path)
    try:
        done = subprocess.run(
            [sys.executable, "-c", DIES, str(tmp_path)], capture_output=True, text=True, check=False
        )
        dead, sockets = done.stdout.split()
        assert done.returncode == -9
        assert (tmp_path / dead).is_dir()
        assert os.path.isdir(sockets)  # noqa: PTH112 - as it was printed
        assert sweep(tmp_path) == [dead]
        assert not (tmp_path / dead).exists()
        assert not (tmp_path / f"{dead}.lock").exists()
        assert not os.path.exists(sockets)  # noqa: PTH110 - as it was printed
        assert alive.data.is_dir()
        assert alive.sockets.is_dir()
    finally:
        alive.close()


def test_a_record_that_names_somebody_elses_directory_is_not_believed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    runs = tmp_path / "runs"
    (runs / "0badcafe").mkdir(parents=True)
    (runs / "0badcafe" / "run.json").write_text(json.dumps({"pid": 1, "sockets": str(theirs)}))
    assert sweep(runs) == ["0badcafe"]
    assert theirs.is_dir()


def test_a_run_killed_before_it_wrote_its_record_is_swept_too(tmp_path: Path) -> None:
    (tmp_path / "0badcafe").mkdir()
    assert sweep(tmp_path) == ["0badcafe"]
    assert list(tmp_path.iterdir()) == []
