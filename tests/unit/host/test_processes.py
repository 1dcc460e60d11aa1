from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from pytest_vmsnap.host import processes

if TYPE_CHECKING:
    from pathlib import Path


def test_only_qemus_with_the_prefix_are_ended(tmp_path: Path) -> None:
    fake = tmp_path / "qemu-system-x86_64"
    fake.symlink_to("/bin/sh")

    def begin(name: str) -> subprocess.Popen[bytes]:
        command = [str(fake), "-c", "read x", f"guest={name},debug-threads=on"]
        return subprocess.Popen(command, stdin=subprocess.PIPE)

    wanted, other = begin("vmsnap-aaaa-vm-1"), begin("vmsnap-bbbb-vm-1")
    try:
        assert processes.qemu_of("vmsnap-aaaa-vm-1") == wanted.pid
        assert processes.end_qemus("vmsnap-aaaa-") == [wanted.pid]
        assert wanted.wait(5) == -9
        assert other.poll() is None
        assert processes.qemu_of("vmsnap-aaaa-vm-1") is None
    finally:
        for process in (wanted, other):
            process.kill()
            process.communicate()
