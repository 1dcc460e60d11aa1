"""Vendors' images by name, from a server on loopback that is laid out as the vendors' are."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image import provide
from pytest_vmsnap.image.checksum import Checksum
from pytest_vmsnap.image.vendors import parse_name, vendors
from pytest_vmsnap.image.vendors.provide import fetch, resolution_of
from pytest_vmsnap.image.vendors.sums import parse_sums
from pytest_vmsnap.model import Image, ImageRequest

from . import web_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from pytest_vmsnap.progress import Progress
    from pytest_vmsnap.store import Store

    Ask = Callable[[str], Image]

SIGNED = """\
-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# {file}: 7 bytes
{sums}
-----BEGIN PGP SIGNATURE-----

iQIzBAEBCAAdFiEExuf0VKYtd7p2cVJBgpxFmzFkVt8FAmbUxyIACgkQgpxFmzFk
-----END PGP SIGNATURE-----
"""
GNU, BINARY, BSD, ALONE = "{digits}  {file}", "{digits} *{file}", "{tag} ({file}) = {digits}", "{digits}"


@dataclass(frozen=True)
class Layout:
    """How a vendor lays out its directory: what a name stands for, and what else is there."""

    name: str
    directory: str
    file: str
    sums: str
    form: str = GNU
    signed: bool = False
    others: tuple[str, ...] = ()
    named: str | None = None  # what the sums call the file, if not `file`

    @property
    def algorithm(self) -> str:
        return vendors()[self.name.partition(":")[0]].algorithm


LAYOUTS = (
    Layout(
        name="ubuntu:24.04",
        directory="cloud-images.ubuntu.com/releases/24.04/release/",
        file="ubuntu-24.04-server-cloudimg-amd64.img",
        sums="SHA256SUMS",
        form=BINARY,
        others=("ubuntu-24.04-server-cloudimg-amd64-root.tar.xz", "ubuntu-24.04-server-cloudimg-arm64.img"),
    ),
    Layout(
        name="debian-cloud:13",
        directory="cloud.debian.org/images/cloud/trixie/latest/",
        file="debian-13-genericcloud-amd64.qcow2",
        sums="SHA512SUMS",
        others=("debian-13-genericcloud-amd64.raw", "debian-13-generic-amd64.qcow2"),
    ),
    Layout(
        name="fedora:43",
        directory="dl.fedoraproject.org/pub/fedora/linux/releases/43/Cloud/x86_64/images/",
        file="Fedora-Cloud-Base-Generic-43-1.6.x86_64.qcow2",
        sums="Fedora-Cloud-43-1.6-x86_64-CHECKSUM",
        form=BSD,
        signed=True,
        others=("Fedora-Cloud-Base-AmazonEC2-43-1.6.x86_64.raw.xz",),
    ),
    Layout(
        name="almalinux:10",
        directory="repo.almalinux.org/almalinux/10/cloud/x86_64/images/",
        file="AlmaLinux-10-GenericCloud-latest.x86_64.qcow2",
        sums="CHECKSUM",
        others=("AlmaLinux-10-GenericCloud-10.1-20251125.0.x86_64.qcow2",),
    ),
    Layout(
        name="rocky:10",
        directory="dl.rockylinux.org/pub/rocky/10/images/x86_64/",
        file="Rocky-10-GenericCloud-Base.latest.x86_64.qcow2",
        sums="Rocky-10-GenericCloud-Base.latest.x86_64.qcow2.CHECKSUM",
        form=BSD,
        named="Rocky-10-GenericCloud-Base-10.2-20260525.0.x86_64.qcow2",
    ),
    Layout(
        name="centos-stream:10",
        directory="cloud.centos.org/centos/10-stream/x86_64/images/",
        file="CentOS-Stream-GenericCloud-x86_64-10-latest.x86_64.qcow2",
        sums="CentOS-Stream-GenericCloud-x86_64-10-latest.x86_64.qcow2.SHA256SUM",
        form=BSD,
    ),
    Layout(
        name="opensuse:16.0",
        directory="download.opensuse.org/distribution/leap/16.0/appliances/",
        file="Leap-16.0-Minimal-VM.x86_64-Cloud.qcow2",
        sums="Leap-16.0-Minimal-VM.x86_64-Cloud.qcow2.sha256",
        others=("Leap-16.0-Minimal-VM.x86_64-kvm-and-xen.qcow2",),
    ),
    Layout(
        name="arch",
        directory="geo.mirror.pkgbuild.com/images/latest/",
        file="Arch-Linux-x86_64-cloudimg.qcow2",
        sums="Arch-Linux-x86_64-cloudimg.qcow2.SHA256",
    ),
    Layout(
        name="alpine:3.22",
        directory="dl-cdn.alpinelinux.org/alpine/v3.22/releases/cloud/",
        file="generic_alpine-3.22.10-x86_64-bios-cloudinit-r0.qcow2",
        sums="generic_alpine-3.22.10-x86_64-bios-cloudinit-r0.qcow2.sha512",
        form=ALONE,
        others=(
            "generic_alpine-3.22.9-x86_64-bios-cloudinit-r0.qcow2",
            "generic_alpine-3.22.10-x86_64-uefi-cloudinit-r0.qcow2",
            "generic_alpine-3.22.10-aarch64-uefi-cloudinit-r0.qcow2",
        ),
    ),
)


@dataclass
class Server:
    """A web server with files by path, which lists the directories as Apache does, and counts what is asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def publish(self, layout: Layout, content: bytes) -> str:
        """Put an image there as the vendor does, with its neighbours; returns the digest."""
        digits = hashlib.new(layout.algorithm, content).hexdigest()
        lines = []
        for file in (layout.file, *layout.others):
            data = content if file == layout.file else file.encode()
            self.files[layout.directory + file] = data
            sum_ = hashlib.new(layout.algorithm, data).hexdigest()
            named = layout.named or file
            lines.append(layout.form.format(digits=sum_, file=named, tag=layout.algorithm.upper()))
            if layout.sums.startswith(layout.file):
                break  # the sums are those of this file alone
        text = "\n".join(reversed(lines)) + "\n"
        if layout.signed:
            text = SIGNED.format(file=layout.file, sums=text)
        for file in layout.others:
            self.files[layout.directory + file] = file.encode()
        self.files[layout.directory + layout.sums] = text.encode()
        return digits

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = self.page(handler.path.removeprefix("/"))
        handler.send_response(404 if body is None else 200)
        handler.send_header("Content-Length", str(len(body or b"")))
        handler.end_headers()
        handler.wfile.write(body or b"")

    def page(self, path: str) -> bytes | None:
        self.asked.append(path)
        if path in self.files:
            return self.files[path]
        names = {one.removeprefix(path).partition("/")[0] for one in self.files if one.startswith(path)}
        if not path.endswith("/") or not names:
            return None
        links = [
            f'<a href="{name.replace("+", "%2B")}">{name[:20]}..&gt;</a> 2026-05-25 10:00  1M' for name in names
        ]
        return b"<html><a href='?C=N;O=D'>Name</a> <a href=\"/pub/\">Parent</a>\n" + "\n".join(links).encode()


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    with web_server.serving(server.answer) as server.address:
        yield server


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as running:
        yield running


@pytest.fixture
def disk(make_disk: Callable[..., Path]) -> bytes:
    return make_disk("published.qcow2").read_bytes()


@pytest.fixture
def ask(tmp_path: Path, store: Store, progress: Progress, server: Server) -> Ask:
    def asked(image: str) -> Image:
        request = ImageRequest(image=image, root=tmp_path, mirror=server.address)
        return provide(request, store=store, progress=progress)

    return asked


UBUNTU = LAYOUTS[0]


def test_every_vendor_of_the_table_has_a_layout_here() -> None:
    assert {layout.name.partition(":")[0] for layout in LAYOUTS} == set(vendors())


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_a_name_is_the_vendors_newest_image_with_its_own_checksum(
    layout: Layout, server: Server, ask: Ask, disk: bytes, store: Store
) -> None:
    digits = server.publish(layout, disk)
    image = ask(layout.name)
    assert image.origin == layout.name
    assert image.disk
    assert image.disk.read_bytes() == disk
    found = resolution_of(store, parse_name(layout.name))
    assert found
    assert found.published.address == f"{server.address}/{layout.directory}{layout.file}"
    assert found.published.checksum == Checksum(vendors()[layout.name.partition(":")[0]].algorithm, digits)


@pytest.mark.parametrize("vendor", vendors().values(), ids=lambda vendor: vendor.name)
def test_the_examples_of_the_table_are_names(vendor: Any) -> None:
    for written in vendor.examples_text.split(", "):
        name = parse_name(written)
        assert str(name) == written
        for template in (vendor.directory, vendor.file, vendor.sums):
            rest = name.filled_in(template).replace("{file}", "")
            assert "{" not in rest
        assert vendor.directory.startswith("https://")
        assert vendor.directory.endswith("/")


def test_a_name_is_resolved_once_and_then_needs_no_network(server: Server, ask: Ask, disk: bytes) -> None:
    server.publish(UBUNTU, disk)
    first = ask("ubuntu:24.04")
    count = len(server.asked)
    assert ask("ubuntu:24.04").key == first.key
    server.publish(UBUNTU, disk + b"newer")
    assert ask("ubuntu:24.04").key == first.key
    assert len(server.asked) == count


def test_a_pull_takes_the_newer_image(
    server: Server, ask: Ask, disk: bytes, store: Store, progress: Progress
) -> None:
    server.publish(UBUNTU, disk)
    old = ask("ubuntu:24.04")
    digits = server.publish(UBUNTU, disk + b"newer")
    name = parse_name("ubuntu:24.04")
    assert fetch(name, mirror=server.address, store=store, progress=progress).checksum.digest == digits
    new = ask("ubuntu:24.04")
    assert new.key != old.key
    assert old.disk
    assert old.disk.exists()  # states of it may be in use


def test_a_pin_is_held_although_the_vendor_has_a_newer_image(server: Server, ask: Ask, disk: bytes) -> None:
    digits = server.publish(UBUNTU, disk)
    pinned = f"ubuntu:24.04@sha256:{digits}"
    first = ask(pinned)
    newer = server.publish(UBUNTU, disk + b"newer")
    assert ask(pinned).key == first.key
    other = f"ubuntu:24.04@sha256:{'0' * 64}"
    with pytest.raises(
        ImageError, match=rf"(?s)not in the store.*expected sha256:0+\n.*found    sha256:{newer}"
    ):
        ask(other)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("ubuntu:24.04@sha256:12", "has an invalid checksum"),
        ("debian-cloud:13@sha256:" + "0" * 64, "publishes sha512"),
        ("ubuntu:noble", "'ubuntu:noble' is not an image of Ubuntu Server"),
        ("ubuntu", "is not an image of Ubuntu Server"),
        ("debian-cloud:99", "is not an image of Debian"),
        ("arch:2026", "is not an image of Arch Linux"),
    ],
)
def test_a_name_that_cannot_be_is_told_what_is_allowed(ask: Ask, written: str, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        ask(written)


def test_a_version_that_the_vendor_does_not_have_says_where_it_was_looked_for(ask: Ask, server: Server) -> None:
    with pytest.raises(ImageError, match=r"SHA256SUMS cannot be fetched: the server answers 404"):
        ask("ubuntu:98.04")
    server.publish(LAYOUTS[2], b"")
    del server.files[LAYOUTS[2].directory + LAYOUTS[2].sums]
    with pytest.raises(ImageError, match=r"lists no Fedora-Cloud-43-\*-x86_64-CHECKSUM"):
        ask("fedora:43")


def test_an_image_that_is_not_what_the_vendor_says_is_refused_with_the_source(
    server: Server, ask: Ask, disk: bytes, store: Store
) -> None:
    digits = server.publish(UBUNTU, disk)
    server.files[UBUNTU.directory + UBUNTU.file] = disk + b"tampered"
    with pytest.raises(ImageError) as caught:
        ask("ubuntu:24.04")
    assert f"expected {digits} (by {server.address}/{UBUNTU.directory}SHA256SUMS)" in caught.value.message
    assert hashlib.sha256(disk + b"tampered").hexdigest() in caught.value.message
    assert "vmsnap pull ubuntu:24.04" in (caught.value.hint or "")
    assert not list((store.path / "downloads").iterdir())


def test_sums_without_the_image_say_so(server: Server, ask: Ask, disk: bytes) -> None:
    server.publish(UBUNTU, disk)
    server.files[UBUNTU.directory + "SHA256SUMS"] = b"<html>moved</html>"
    with pytest.raises(ImageError, match=r"SHA256SUMS lists no ubuntu-24\.04-server-cloudimg-amd64\.img"):
        ask("ubuntu:24.04")


def test_an_answer_without_end_is_cut_off(server: Server, ask: Ask, disk: bytes) -> None:
    server.publish(UBUNTU, disk)
    server.files[UBUNTU.directory + "SHA256SUMS"] = bytes(9 << 20)
    with pytest.raises(ImageError, match=r"SHA256SUMS is longer than 8 MiB"):
        ask("ubuntu:24.04")


def test_a_damaged_note_is_made_anew(server: Server, ask: Ask, disk: bytes, store: Store) -> None:
    server.publish(UBUNTU, disk)
    first = ask("ubuntu:24.04")
    (store.path / "image-names" / "ubuntu:24.04.json").write_text("{")
    assert ask("ubuntu:24.04").key == first.key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" * 64 + "  x.img", {"x.img": "a" * 64}),
        ("A" * 64 + " *./dir/x.img", {"x.img": "a" * 64}),
        (f"SHA256 (x y.img) = {'b' * 64}", {"x y.img": "b" * 64}),
        ("c" * 64 + "\n", {"": "c" * 64}),
        ("# d\n" + "d" * 63 + "  x\n" + "e" * 128 + "  x", {}),
        (f"SHA512 (x.img) = {'b' * 64}", {}),
    ],
)
def test_sums_are_read_in_every_format(text: str, expected: dict[str, str]) -> None:
    assert parse_sums(text, "sha256") == expected
