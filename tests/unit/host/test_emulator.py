"""QEMU's programs, missing, old, silent and talkative; the real one at the end."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_vmsnap.errors import HostError, NoHypervisor
from pytest_vmsnap.host import emulator
from pytest_vmsnap.host.qemu_capabilities import Capabilities, has_user_network, query_capabilities

# A program in QEMU's place: it answers from a table, and notes its process id.
MONITOR = """\
#!{python}
import json, os, sys
open({pid!r}, "w").write(str(os.getpid()))
answers = json.loads({answers!r})
print(json.dumps({{"QMP": {{}}}}), flush=True)
for line in sys.stdin:
    print(json.dumps({{"event": "STOP"}}), flush=True)
    command = json.loads(line)["execute"]
    print(json.dumps(answers.get(command, {{"return": {{}}}})), flush=True)
"""
CAPABILITIES = [{"capability": "xbzrle"}, {"capability": "x-ignore-shared"}]
OLD_ADDRESSES = {"meta-type": "enum", "values": ["socket", "exec", "fd"]}
ADDRESSES = {"meta-type": "enum", "values": ["socket", "exec", "fd", "file"]}
MEMORY_FILE = {"meta-type": "object", "members": [{"name": "mem-path"}, {"name": "rom"}]}
NETWORKS = {"meta-type": "enum", "values": ["none", "nic", "user", "tap"]}
NO_USER_NETWORK = {"meta-type": "enum", "values": ["none", "nic", "tap"]}


def script(directory: Path, text: str) -> Path:
    path = directory / "qemu"
    path.write_text(text)
    path.chmod(0o755)
    return path


def qemu(directory: Path, *, capabilities: list[Any] = CAPABILITIES, schema: tuple[Any, ...] = ()) -> Path:
    answers = {
        "query-migrate-capabilities": {"return": capabilities},
        "query-qmp-schema": {"return": list(schema)},
        "nonsense": {"error": {"desc": "The command nonsense has not been found"}},
    }
    return script(
        directory,
        MONITOR.format(python=sys.executable, answers=json.dumps(answers), pid=str(directory / "pid")),
    )


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ((OLD_ADDRESSES,), Capabilities(file_address=False, sealed_memory=False)),
        ((ADDRESSES,), Capabilities(file_address=True, sealed_memory=False)),
        ((ADDRESSES, MEMORY_FILE), Capabilities(file_address=True, sealed_memory=True)),
    ],
)
def test_a_qemu_that_runs_no_machine_tells_what_it_can_do(
    tmp_path: Path, schema: tuple[Any, ...], expected: Capabilities
) -> None:
    with emulator.qmp_session(qemu(tmp_path, schema=schema)) as ask:
        assert query_capabilities(ask) == expected


def test_a_qemu_that_cannot_leave_memory_in_its_file_is_refused(tmp_path: Path) -> None:
    with (
        emulator.qmp_session(qemu(tmp_path, capabilities=CAPABILITIES[:1])) as ask,
        pytest.raises(HostError, match="lacks the migration capability x-ignore-shared"),
    ):
        query_capabilities(ask)


@pytest.mark.parametrize(("schema", "has"), [(NETWORKS, True), (NO_USER_NETWORK, False)])
def test_user_mode_networking_is_asked_for(tmp_path: Path, schema: Any, has: bool) -> None:
    with emulator.qmp_session(qemu(tmp_path, schema=(OLD_ADDRESSES, schema))) as ask:
        assert has_user_network(ask) is has


def test_what_qemu_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    with (
        emulator.qmp_session(qemu(tmp_path)) as ask,
        pytest.raises(HostError, match="refused nonsense: The command nonsense has not been found"),
    ):
        ask("nonsense")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\necho 'cannot open shared object file: libslirp.so.0' >&2; exit 127\n", "libslirp.so.0"),
        ("#!/bin/sh\necho hello; read line\n", "does not answer"),
        ("#!/bin/sh\nexit 3\n", "it ended without an answer"),
        ("no program at all", "cannot be started"),
    ],
)
def test_a_qemu_that_does_not_answer_is_told_by_what_it_said(tmp_path: Path, text: str, words: str) -> None:
    with (
        pytest.raises(HostError, match=words) as caught,
        emulator.qmp_session(script(tmp_path, text)),
    ):
        pytest.fail("it answered")
    assert "apt install libvirt-daemon-system" in caught.value.hint


def test_a_qemu_that_says_nothing_is_ended_at_the_time_out(tmp_path: Path) -> None:
    started = time.monotonic()
    silent = script(tmp_path, f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 600\n")
    with (
        pytest.raises(HostError, match=r"no answer within 0\.3 s"),
        emulator.qmp_session(silent, timeout=0.3),
    ):
        pytest.fail("it answered")
    assert time.monotonic() - started < 60
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_nothing_runs_on_after_the_questions(tmp_path: Path) -> None:
    with emulator.qmp_session(qemu(tmp_path)) as ask:
        ask("query-status")
        pid = (tmp_path / "pid").read_text()
        assert Path("/proc", pid).exists()
    assert not Path("/proc", pid).exists()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", "10.0.2"),
        ("qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7)", "7.2.22"),
        ("libvirtd (libvirt) 9.0.0", "9.0.0"),
    ],
)
def test_a_version_is_read_from_what_the_program_says(tmp_path: Path, text: str, version: str) -> None:
    assert emulator.version_of(script(tmp_path, f"#!/bin/sh\necho '{text}'\n")) == version


@pytest.mark.parametrize("text", ["no program", "#!/bin/sh\necho broken >&2; exit 1\n"])
def test_a_program_that_does_not_run_is_an_error_that_says_what_to_install(tmp_path: Path, text: str) -> None:
    with pytest.raises(NoHypervisor, match=r"cannot be started|shows no version: broken") as caught:
        emulator.version_of(script(tmp_path, text))
    assert "dnf install" in caught.value.hint


def test_an_old_version_is_refused_by_name() -> None:
    with pytest.raises(HostError, match=r"QEMU 6\.2\.0 is too old: 7\.2 or later is needed"):
        emulator.expect_version("QEMU", "6.2.0", emulator.QEMU_FLOOR)
    emulator.expect_version("QEMU", "10.0.1", emulator.QEMU_FLOOR)


def test_this_hosts_qemu_can_leave_memory_in_its_file() -> None:
    """The real one, whatever it is."""
    found = shutil.which(emulator.EMULATOR)
    if not found:
        pytest.skip(f"needs {emulator.EMULATOR}")
    with emulator.qmp_session(Path(found)) as ask:
        able = query_capabilities(ask)
    recent = emulator.numbers(emulator.version_of(Path(found))) >= (8, 2)
    assert (able.file_address, able.sealed_memory) == (recent, recent)
