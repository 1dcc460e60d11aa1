"""What `example_project/install-requirements` does where apt-get fails; apt-get itself is a script here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).parents[2] / "example_project" / "install-requirements"
LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)"
OFFLINE = "E: Failed to fetch http://nowhere/InRelease  Could not connect"
APT_GET = """\
#!/bin/sh
echo x >>{calls}
if [ "$(wc -l <{calls})" -le {failures} ]; then
    echo '{reason}'
    exit 100
fi
"""

pytestmark = pytest.mark.skipif(not shutil.which("apt-get"), reason="no Debian")


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`install(failures, reason)`: a run of the script, where the first calls of apt-get fail."""

    def run(failures: int, reason: str) -> subprocess.CompletedProcess[str]:
        calls = tmp_path / "calls"
        scripts = {
            "apt-get": APT_GET.format(calls=calls, failures=failures, reason=reason),
            "dpkg-query": "#!/bin/sh\n",  # nothing is installed
            "sudo": '#!/bin/sh\nexec "$@"\n',
            "sleep": "#!/bin/sh\n",
        }
        for name, text in scripts.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False)

    return run


def test_another_apt_gets_lock_is_waited_for(
    install: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = install(5, LOCKED)
    assert done.returncode == 0
    assert done.stdout.count("Waiting for another apt-get to end") == 1
    assert "tried once more" not in done.stdout


def test_a_lock_that_stays_is_shown_in_the_end(
    install: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = install(1000, LOCKED)
    assert done.returncode == 1
    assert LOCKED in done.stderr


def test_a_network_that_fails_once_is_tried_once_more(
    install: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = install(1, OFFLINE)
    assert done.returncode == 0
    assert "==> apt-get update failed, and is tried once more" in done.stdout
    assert install(1000, OFFLINE).returncode == 1
