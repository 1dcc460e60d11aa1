from __future__ import annotations

import hashlib
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image import provide
from pytest_vmsnap.model import Image, ImageRequest

from . import web_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Store

    MakeDisk = Callable[..., Path]
    Ask = Callable[..., Image]


@dataclass
class Site:
    """A web server with one file; `drops` counts the answers that end half-way."""

    content: bytes = b""
    ranges: bool = True
    drops: int = 0
    status: int | None = None
    requests: list[str | None] = field(default_factory=list)
    address: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.requests.append(asked)
        if self.status:
            handler.send_error(self.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.ranges else 0  # type: ignore[index]
        if start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = self.content[start:]
        handler.send_response(206 if asked and self.ranges else 200)
        if asked and self.ranges:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if self.drops:
            self.drops -= 1
            body = body[: len(body) // 2]
        handler.wfile.write(body)


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    with web_server.serving(site.answer) as address:
        site.address = f"{address}/image.qcow2"
        yield site


@pytest.fixture
def site(make_disk: MakeDisk) -> Iterator[Site]:
    with serving(Site(content=make_disk("served.qcow2").read_bytes())) as running:
        yield running


@pytest.fixture
def ask(tmp_path: Path, store: Store, progress: Progress) -> Ask:
    """Asks for the image at an address."""

    def provided(address: str, **parts: Any) -> Image:
        request = ImageRequest(image=address, root=tmp_path, **parts)
        return provide(request, store=store, progress=progress)

    return provided


def left(store: Store) -> list[str]:
    return [path.name for path in (store.path / "downloads").iterdir()]


def test_an_image_is_fetched_whole_and_into_the_store(site: Site, ask: Ask, store: Store) -> None:
    image = ask(site.address, sha256=site.sha256)
    assert image.disk
    assert image.disk.read_bytes() == site.content
    assert image.disk.is_relative_to(store.path / "images")
    assert image.format == "qcow2"
    assert left(store) == []


def test_it_is_fetched_once(site: Site, ask: Ask) -> None:
    first = ask(site.address, sha256=site.sha256)
    assert ask(site.address, sha256=site.sha256.upper()) == first
    assert len(site.requests) == 1


def test_runs_that_ask_at_once_fetch_it_once(site: Site, ask: Ask) -> None:
    images: list[Image] = []
    threads = [
        threading.Thread(target=lambda: images.append(ask(site.address, sha256=site.sha256))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(images) == 4
    assert len(site.requests) == 1


def test_the_key_is_that_of_the_content_not_of_the_address(site: Site, ask: Ask) -> None:
    first = ask(site.address, sha256=site.sha256)
    assert ask(site.address + "?mirror=2", sha256=site.sha256).key == first.key


def test_a_kernel_may_be_given_with_it(tmp_path: Path, site: Site, ask: Ask) -> None:
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    assert ask(site.address, sha256=site.sha256, kernel="vmlinuz").kernel == tmp_path / "vmlinuz"


def test_a_connection_that_drops_half_way_goes_on_from_there(site: Site, ask: Ask) -> None:
    site.drops = 2
    image = ask(site.address, sha256=site.sha256)
    assert image.disk
    assert image.disk.read_bytes() == site.content
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in site.requests[1:] if asked]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < len(site.content)


def test_a_server_that_knows_no_ranges_is_asked_for_all_again(site: Site, ask: Ask) -> None:
    site.drops, site.ranges = 1, False
    image = ask(site.address, sha256=site.sha256)
    assert image.disk
    assert image.disk.read_bytes() == site.content


def test_what_an_interrupted_run_fetched_is_used_by_the_next(site: Site, ask: Ask, store: Store) -> None:
    (store.path / "downloads" / f"{site.sha256}.part").write_bytes(site.content[:1000])
    ask(site.address, sha256=site.sha256)
    assert site.requests == ["bytes=1000-"]


def test_a_part_that_was_already_whole_is_used(site: Site, ask: Ask, store: Store) -> None:
    (store.path / "downloads" / f"{site.sha256}.part").write_bytes(site.content)
    assert ask(site.address, sha256=site.sha256).disk


def test_a_part_that_is_longer_than_the_file_starts_anew(site: Site, ask: Ask, store: Store) -> None:
    (store.path / "downloads" / f"{site.sha256}.part").write_bytes(site.content + b"more")
    image = ask(site.address, sha256=site.sha256)
    assert image.disk
    assert image.disk.read_bytes() == site.content


def test_a_part_of_another_file_is_fetched_anew(site: Site, ask: Ask, store: Store) -> None:
    (store.path / "downloads" / f"{site.sha256}.part").write_bytes(b"x" * 1000)
    image = ask(site.address, sha256=site.sha256)
    assert image.disk
    assert image.disk.read_bytes() == site.content


def test_a_server_that_goes_on_failing_keeps_the_part(site: Site, ask: Ask, store: Store) -> None:
    part = store.path / "downloads" / f"{site.sha256}.part"
    part.write_bytes(site.content[:1000])
    site.status = 503
    with pytest.raises(ImageError, match="the server answers 503"):
        ask(site.address, sha256=site.sha256)
    assert part.stat().st_size == 1000


def test_a_wrong_digest_says_both_and_deletes_the_file(site: Site, ask: Ask, store: Store) -> None:
    with pytest.raises(ImageError) as caught:
        ask(site.address, sha256="0" * 64)
    assert "expected " + "0" * 64 in str(caught.value)
    assert f"found    {site.sha256}" in str(caught.value)
    assert left(store) == []
    assert list((store.path / "images").iterdir()) == []


def test_a_missing_file_names_the_address_and_asks_once(site: Site, ask: Ask) -> None:
    site.status = 404
    with pytest.raises(
        ImageError, match=re.escape(f"{site.address} cannot be fetched: the server answers 404")
    ):
        ask(site.address, sha256=site.sha256)
    assert len(site.requests) == 1


def test_a_refused_connection_is_said(ask: Ask) -> None:
    with serving(Site()) as gone:
        pass
    with pytest.raises(ImageError, match="cannot be fetched: connection refused") as caught:
        ask(gone.address, sha256="0" * 64)
    assert "check the network" in caught.value.hint


def test_a_server_that_falls_silent_is_given_up(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_vmsnap.image.download.SILENCE_SECONDS", 0.05)
    released = threading.Event()

    class Silent(Site):
        def answer(self, _handler: BaseHTTPRequestHandler) -> None:
            released.wait(30)

    with serving(Silent()) as silent:
        try:
            with pytest.raises(ImageError, match="no data came"):
                ask(silent.address, sha256="0" * 64)
        finally:
            released.set()


def test_what_is_secret_in_an_address_is_never_shown(
    site: Site, ask: Ask, store: Store, said: list[str]
) -> None:
    site.status = 403
    secret = site.address.replace("http://", "http://user:geheim@") + "?token=geheim"
    with pytest.raises(ImageError) as caught:
        ask(secret, sha256=site.sha256)
    site.status = None
    image = ask(secret, sha256=site.sha256)
    assert image.disk
    written = (image.disk.parent / "meta.json").read_text()
    assert "geheim" not in str(caught.value) + "".join(said) + image.origin + written


def test_an_address_needs_a_digest_and_says_how_to_get_it(ask: Ask) -> None:
    with pytest.raises(ImageError, match="SHA-256 digest is needed") as caught:
        ask("https://example.org/a.qcow2")
    assert "curl -fsSL https://example.org/a.qcow2 | sha256sum" in caught.value.hint


@pytest.mark.parametrize("sha256", ["abc", "g" * 64, "0" * 63])
def test_a_malformed_digest_is_refused(ask: Ask, sha256: str) -> None:
    with pytest.raises(ImageError, match="is not a SHA-256 digest"):
        ask("https://example.org/a.qcow2", sha256=sha256)


def test_an_image_of_another_format_is_refused(make_disk: MakeDisk, ask: Ask) -> None:
    with (
        serving(Site(content=make_disk("a.vmdk", "vmdk").read_bytes())) as site,
        pytest.raises(ImageError, match="format vmdk"),
    ):
        ask(site.address, sha256=site.sha256)


def test_an_image_that_refers_to_a_file_of_the_host_is_refused(
    tmp_path: Path, make_disk: MakeDisk, ask: Ask
) -> None:
    base = make_disk("base.qcow2")
    with (
        serving(Site(content=make_disk("top.qcow2", backing=str(base)).read_bytes())) as site,
        pytest.raises(ImageError, match=r"refers to another file, .*base\.qcow2"),
    ):
        ask(site.address, sha256=site.sha256)
