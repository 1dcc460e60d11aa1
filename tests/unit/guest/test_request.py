from __future__ import annotations

import subprocess

from pytest_vmsnap.guest import Request


def run(request: Request) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", request.script()], capture_output=True, text=True, check=False)


def test_directory_and_environment_hold_for_the_command() -> None:
    odd = "a b'c\"\n$(d)`e`\\"
    assert run(Request(text='pwd; printf "%s" "$ODD"', cwd="/usr", env={"ODD": odd})).stdout == f"/usr\n{odd}"


def test_a_directory_that_is_not_there_fails_with_126() -> None:
    assert run(Request(text="echo never", cwd="/nowhere")).returncode == 126


def test_the_commands_own_status_is_kept() -> None:
    assert run(Request(text="exit 7")).returncode == 7
