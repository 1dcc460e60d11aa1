"""`vmsnap images` and `vmsnap pull`, with a server on loopback in a vendor's place."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = "ubuntu-24.04-server-cloudimg-amd64.img"


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Not on the test's stderr."""


@pytest.fixture
def published(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The directory where Ubuntu publishes an image, and the mirror's address."""
    place = tmp_path / "mirror" / "cloud-images.ubuntu.com/releases/24.04/release"
    place.mkdir(parents=True)
    handler = partial(Handler, directory=str(tmp_path / "mirror"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="mirror")
    thread.start()
    yield place, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def publish(place: Path, size: str) -> str:
    """A disk with a boot sector; returns its digest."""
    path = place / FILE
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", path, size], check=True)
    with path.open("r+b") as disk:
        disk.write(b"\xeb\x63\x90")
        disk.seek(510)
        disk.write(b"\x55\xaa")
    digits = hashlib.sha256(path.read_bytes()).hexdigest()
    (place / "SHA256SUMS").write_text(f"{digits} *{FILE}\n")
    return digits


def vmsnap(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    result = project.run(sys.executable, Path(sys.executable).with_name("vmsnap"), *arguments)
    assert "Traceback" not in str(result.stderr)
    return result


def test_an_image_is_pulled_listed_and_replaced(
    project: pytest.Pytester, published: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, mirror = published
    monkeypatch.setenv("VMSNAP_IMAGE_MIRROR", mirror)
    digits = publish(place, "1M")
    vmsnap(project, "pull", "ubuntu:24.04").stdout.fnmatch_lines([f"ubuntu:24.04: sha256:{digits}, new"])
    vmsnap(project, "pull", "ubuntu:24.04").stdout.fnmatch_lines([f"ubuntu:24.04: sha256:{digits}, as before"])
    newer = publish(place, "2M")
    vmsnap(project, "pull", "ubuntu:24.04").stdout.fnmatch_lines([f"ubuntu:24.04: sha256:{newer}, new"])
    listed = vmsnap(project, "images")
    listed.stdout.fnmatch_lines(["  ubuntu:22.04, *", "  debian:SUITE *", "in the store *"])
    for each in (digits, newer):
        listed.stdout.fnmatch_lines([f"  ubuntu:24.04@sha256:{each}  *MiB  * s old"])


def test_what_cannot_be_pulled_says_what_can(project: pytest.Pytester, published: tuple[Path, str]) -> None:
    refused = vmsnap(project, "pull", "debian:trixie")
    assert refused.ret == 1
    refused.stderr.fnmatch_lines(["vmsnap: 'debian:trixie' is not a vendor's image", "*vmsnap images*"])
    refused = vmsnap(project, "pull", "ubuntu:noble")
    refused.stderr.fnmatch_lines(
        ["vmsnap: 'ubuntu:noble' is not an image of Ubuntu Server", "e.g. ubuntu:22.04*"]
    )


def test_an_empty_store_has_no_images(project: pytest.Pytester) -> None:
    listed = vmsnap(project, "images")
    assert listed.ret == 0
    assert listed.outlines[-1] == "none"
