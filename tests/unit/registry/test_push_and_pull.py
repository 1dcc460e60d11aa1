"""What one host pushes, another pulls instead of building it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.errors import RegistryError, StoreDamaged
from pytest_vmsnap.progress import silent
from pytest_vmsnap.registry import Description, find, push
from pytest_vmsnap.registry.artifact import EntryInRegistry, Need, digest_of, tag_of
from pytest_vmsnap.registry.find import entry_at
from pytest_vmsnap.registry.pieces import zstd
from pytest_vmsnap.store import EntryName, expect_whole

from ...guest.memory import peak
from ...registry_server import PASSWORD, auth_file, serving
from .conftest import DATA, IMAGE, STATE, Host

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from pytest_vmsnap.registry import Pushed

    from ...registry_server import RegistryServer, Relay


def described(name: EntryName) -> Description:
    state = name.key if name.kind == "states" else ""
    return Description(title=f"state {name.key}", state=state, made_from={"base.cpu": "a model"})


def pushed(host: Host, name: EntryName = STATE) -> list[Pushed]:
    return push(host.store, host.registry, name, describe=described, progress=silent())


@pytest.fixture
def first(tmp_path: Path, server: RegistryServer) -> Host:
    """A host that has pushed the state."""
    host = Host(tmp_path / "first", server.address)
    host.state()
    pushed(host)
    return host


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_state_and_its_image_are_pulled_instead_of_built(
    tmp_path: Path, server: RegistryServer, first: Host
) -> None:
    second = Host(tmp_path / "second", server.address)
    entry = second.state()
    assert second.built == []
    assert (entry / "ram").read_bytes() == b"memory" * 1000
    image = second.store.place(IMAGE)
    assert digest(image / "disk") == digest(first.store.place(IMAGE) / "disk")
    assert (image / "disk").stat().st_blocks * 512 < 12 << 20  # its holes are holes
    assert (image / "disk").stat().st_mode & 0o777 == 0o400
    for name in (IMAGE, STATE):
        expect_whole(second.store.place(name))
    assert list(second.store.partial.iterdir()) == []


def test_what_the_registry_has_is_not_sent_again(tmp_path: Path, server: RegistryServer, first: Host) -> None:
    assert [each.sent for each in pushed(first)] == [0, 0]
    other = Host(tmp_path / "other", server.address)
    other.store.sources = []
    other.store.provide(
        "images", "image2", "image two", lambda draft: (draft / "disk").write_bytes(DATA) and None
    )
    again = EntryName(kind="images", key="image3")
    other.store.provide("images", again.key, "image", lambda draft: (draft / "disk").write_bytes(DATA) and None)
    assert pushed(other, EntryName(kind="images", key="image2"))[0].sent > 2 << 20
    assert pushed(other, again)[0].sent == 0  # another entry with the same content


@pytest.mark.usefixtures("first")
def test_manifests_have_no_types_but_those_that_every_registry_takes(server: RegistryServer) -> None:
    """GitLab's registry answers 400, "unknown media type", to all that is not on its list."""
    small = [path.read_bytes() for path in server.blobs() if path.stat().st_size < 1 << 20]
    manifests = [json.loads(data) for data in small if data.startswith(b'{"schemaVersion"')]
    assert len(manifests) >= 2
    for manifest in manifests:
        assert "artifactType" not in manifest
        assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
        assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/octet-stream"}


def test_zeros_and_holes_are_not_sent(tmp_path: Path, server: RegistryServer) -> None:
    host = Host(tmp_path / "zeros", server.address)

    def build(draft: Path) -> None:
        (draft / "zeros").write_bytes(bytes(20 << 20))  # written, not a hole
        with (draft / "hole").open("wb") as file:
            file.truncate(1 << 40)

    host.store.provide("images", "zeros", "image", build)
    assert pushed(host, EntryName(kind="images", key="zeros"))[0].sent == 0
    other = Host(tmp_path / "other", server.address)
    entry = other.store.provide("images", "zeros", "image", build)
    assert (entry / "hole").stat().st_size == 1 << 40
    assert (entry / "zeros").read_bytes() == bytes(20 << 20)
    assert EntryName(kind="images", key="zeros") in other.store.fetched


def test_a_state_is_found_by_its_name_and_by_its_key(first: Host) -> None:
    for written in (STATE.key, f"{STATE.key}@{STATE.key}", f"{STATE.key}@{STATE.key[:8]}"):
        found = find(first.registry, written)
        assert found
        assert found.name == STATE
    for written in ("none", f"none@{STATE.key}", f"{STATE.key}@{STATE.key}0", f"{STATE.key}@12345678"):
        assert find(first.registry, written) is None
    with pytest.raises(RegistryError, match="at least 8 digits"):
        find(first.registry, f"{STATE.key}@{STATE.key[:4]}")


def test_other_content_under_the_state_is_not_mixed_with_it(
    tmp_path: Path, server: RegistryServer, first: Host
) -> None:
    """The image was built anew here, so the pushed state does not fit it."""
    host = Host(tmp_path / "host", server.address)
    host.store.sources = []
    host.image(b"other")
    host.store.sources = [host.puller]
    host.state()
    assert host.built == [IMAGE, STATE]
    assert any("was built on other content of images/image1image1" in line for line in host.said)


def test_without_a_registry_it_is_built_and_said_once(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", "oci://127.0.0.1:1/team/states")
    host.state()
    assert host.built == [IMAGE, STATE]
    said = [line for line in host.said if "cannot be pulled" in line]
    assert len(said) == 1
    assert "the state one cannot be pulled, and will be built: " in said[0]
    assert "Connection refused" in said[0]
    assert "Traceback" not in said[0]
    assert "object at 0x" not in said[0]


def test_a_login_is_taken_from_the_auth_file_over_tls_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    directory = tmp_path / "registry"
    directory.mkdir()
    with serving(directory, tls=True, login=True) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth_file(tmp_path / "auth.json", server.host)))
        host = Host(tmp_path / "host", server.address)
        host.state()
        pushed(host)
        second = Host(tmp_path / "second", server.address)
        second.state()
        assert second.built == []
        assert PASSWORD not in caplog.text

        monkeypatch.setenv(
            "REGISTRY_AUTH_FILE", str(auth_file(tmp_path / "wrong.json", server.host, "another"))
        )
        with pytest.raises(RegistryError, match="it refuses the login as tester") as caught:
            pushed(Host(tmp_path / "host", server.address))
        assert f"podman login {server.host}" in caught.value.hint
        monkeypatch.delenv("REGISTRY_AUTH_FILE")
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(RegistryError, match="it asks for a login"):
            pushed(Host(tmp_path / "host", server.address))
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(RegistryError, match=r"TLS fails: .*certificate"):
            pushed(Host(tmp_path / "host", server.address))


def test_a_login_of_a_credential_helper_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-testing"
    helper.write_text(f'#!/bin/sh\ncat >/dev/null\necho \'{{"Username": "tester", "Secret": "{PASSWORD}"}}\'\n')
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "testing"}')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    directory = tmp_path / "registry"
    directory.mkdir()
    with serving(directory, tls=True, login=True) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
        host = Host(tmp_path / "host", server.address)
        host.state()
        assert pushed(host)


def test_a_login_is_never_sent_without_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "registry"
    directory.mkdir()
    with serving(directory, login=True) as server:
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth_file(tmp_path / "auth.json", server.host)))
        host = Host(tmp_path / "host", server.address)
        host.state()
        with pytest.raises(RegistryError, match="it asks for a login without TLS"):
            pushed(host)


def damage_blob(server: RegistryServer, change: Callable[[bytes], bytes]) -> None:
    """Change the largest blob, which is a piece, in the registry's own files."""
    largest = max(server.blobs(), key=lambda path: path.stat().st_size)
    largest.write_bytes(change(largest.read_bytes()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-10] + bytes(10), "its content is not what its digest says"),
        (lambda data: data + b"more", "more than the"),
        (lambda data: data[: len(data) // 2], "digest says"),
    ],
    ids=["changed", "longer", "shorter"],
)
def test_a_tampered_blob_is_refused_and_the_run_builds(
    tmp_path: Path, fresh_server: RegistryServer, change: Callable[[bytes], bytes], said: str
) -> None:
    host = Host(tmp_path / "first", fresh_server.address)
    host.state()
    pushed(host)
    damage_blob(fresh_server, change)
    second = Host(tmp_path / "second", fresh_server.address)
    second.state()
    assert second.built == [IMAGE, STATE]
    assert any("cannot be pulled, and will be built" in line and said in line for line in second.said)


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], bool]:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(code)
        for name, text in headers.items():
            handler.send_header(name.replace("_", "-"), text)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return answer


def hang(handler: BaseHTTPRequestHandler) -> bool:
    handler.rfile.read()  # until the client gives up
    return True


def cut_off(handler: BaseHTTPRequestHandler) -> bool:
    if "/blobs/" not in handler.path or handler.command != "GET":
        return False
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.wfile.write(b"x" * 100)
    handler.close_connection = True
    return True


def endless(handler: BaseHTTPRequestHandler) -> bool:
    if "/manifests/" not in handler.path:
        return False
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 100_000)


def nonsense(handler: BaseHTTPRequestHandler) -> bool:
    if "/manifests/" not in handler.path:
        return False
    handler.send_response(200)
    handler.send_header("Content-Length", "4")
    handler.end_headers()
    handler.wfile.write(b"[{}]")
    return True


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (status(500), "it answers 500"),
        (status(403), "it answers 403"),
        (status(401), "its answer cannot be used|it asks for a login"),
        (status(429, Retry_After="0"), "it answers 429"),
        (status(302, Location="/v2/team/states/manifests/round"), "redirects"),
        (hang, "no answer within"),
        (cut_off, "the connection ended in the middle of an answer"),
        (endless, "its answer has more than 8 MiB"),
        (nonsense, "its manifest is not valid"),
    ],
    ids=["500", "403", "401", "429", "redirects", "hangs", "ends in the middle", "endless", "nonsense"],
)
def test_a_registry_that_fails_is_said_and_the_run_builds(
    tmp_path: Path,
    relay: Relay,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[BaseHTTPRequestHandler], bool],
    said: str,
) -> None:
    import re

    from pytest_vmsnap.registry import client

    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.01)
    host = Host(tmp_path / "first", relay.address)
    host.store.sources = []
    host.state()
    pushed(host)
    relay.answer = lambda handler: handler.path != "/v2/" and fault(handler)
    second = Host(tmp_path / "second", relay.address)
    second.state()
    assert second.built == [IMAGE, STATE]
    told = "\n".join(second.said)
    assert "cannot be pulled, and will be built" in told
    assert re.search(said, told), told
    assert not [path for path in (second.store.path / "states").iterdir() if path.name.startswith(".")]


def test_one_failure_in_passing_is_survived(
    tmp_path: Path, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_vmsnap.registry import client

    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.01)
    host = Host(tmp_path / "first", relay.address)
    host.store.sources = []
    host.state()
    pushed(host)
    seen: set[str] = set()

    def once(handler: BaseHTTPRequestHandler) -> bool:
        if handler.path in seen:
            return False
        seen.add(handler.path)
        return status(503)(handler) if len(seen) % 2 else cut_off(handler)

    relay.answer = once
    second = Host(tmp_path / "second", relay.address)
    second.state()
    assert second.built == []


PULLER = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.unit.registry.conftest import Host
Host(Path(sys.argv[1]), sys.argv[2]).image()
"""


def test_what_a_killed_run_has_pulled_is_not_pulled_again(tmp_path: Path, relay: Relay) -> None:
    host = Host(tmp_path / "first", relay.address)
    host.store.sources = []
    host.image()
    pushed(host, IMAGE)
    layers = []

    def hold(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "GET" and "/blobs/" in handler.path and handler.path not in layers:
            layers.append(handler.path)
            return hang(handler) if len(layers) == 3 else False  # the configuration and one piece come
        return False

    relay.answer = hold
    root = str(pytest_root())
    command = [sys.executable, "-c", PULLER, tmp_path / "second", relay.address, root]
    process = subprocess.Popen([str(each) for each in command])
    partial = tmp_path / "second" / "partial"
    deadline = time.monotonic() + 120
    while not any(path.read_text() for path in partial.glob("*/pieces")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    relay.answer = lambda _: False
    relay.asked.clear()
    second = Host(tmp_path / "second", relay.address)
    assert digest(second.image() / "disk") == digest(host.store.place(IMAGE) / "disk")
    assert second.built == []
    assert len([each for each in relay.asked if each.startswith("GET") and "/blobs/" in each]) < 4


def pytest_root() -> Path:
    from pathlib import Path as ThePath

    return ThePath(__file__).parents[3]


def test_a_manifest_of_another_state_is_refused(tmp_path: Path, fresh_server: RegistryServer) -> None:
    host = Host(tmp_path / "first", fresh_server.address)
    host.state()
    pushed(host)
    manifest = host.registry.manifest("images-image1image1")
    assert manifest
    host.registry.put_manifest("states-state1state1", manifest)
    second = Host(tmp_path / "second", fresh_server.address)
    second.state()
    assert STATE in second.built
    assert any("it is images/image1image1 under another name" in line for line in second.said)


def test_a_lock_pins_what_is_pulled(tmp_path: Path, server: RegistryServer, first: Host) -> None:
    digests = {f"{each.name.kind}-{each.name.key}": each.digest for each in pushed(first)}
    exact = Host(tmp_path / "exact", server.address)
    exact.puller._pinned = digests
    exact.state()
    assert exact.built == []
    other = Host(tmp_path / "other", server.address)
    other.puller._pinned = digests | {"states-state1state1": f"sha256:{'0' * 64}"}
    other.state()
    assert STATE in other.built
    nothing = Host(tmp_path / "nothing", server.address)
    nothing.puller._pinned = {}
    nothing.state()
    assert nothing.built == [IMAGE, STATE]
    assert nothing.said == []


def put_in_place(host: Host, entry: EntryInRegistry) -> None:
    """Push an entry that no store has, as somebody who may push could."""
    config = entry.config()
    host.registry.put(digest_of(config), config)
    host.registry.put_manifest(tag_of(entry.name), entry.manifest())


def test_an_entry_that_needs_itself_is_refused(tmp_path: Path, fresh_server: RegistryServer) -> None:
    host = Host(tmp_path / "first", fresh_server.address)
    host.state()
    pushed(host)
    found = find(host.registry, STATE.key)
    assert found
    circle = replace(found, needs=(Need(name=STATE, content="", digest=f"sha256:{'0' * 64}"),))
    put_in_place(host, circle)
    second = Host(tmp_path / "second", fresh_server.address)
    second.state()
    assert STATE in second.built
    assert any("needs states/state1state1, which needs it" in line for line in second.said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../escape", "leads outside of the entry"),
        ("/etc/passwd", "leads outside of the entry"),
        (".hidden", "leads outside of the entry"),
        ("needs", "which only the store itself writes"),
        ("manifest.json", "which only the store itself writes"),
        ("ram/below", "its list of files"),
    ],
)
def test_a_file_that_leads_outside_is_refused(
    tmp_path: Path, fresh_server: RegistryServer, name: str, said: str
) -> None:
    host = Host(tmp_path / "first", fresh_server.address)
    host.state()
    pushed(host)
    found = find(host.registry, STATE.key)
    assert found
    part = found.parts[0]
    extra = replace(part, files=(replace(part.files[0], name=name),))
    wrong = replace(found, parts=(*found.parts, extra))
    put_in_place(host, wrong)
    second = Host(tmp_path / "second", fresh_server.address)
    second.state()
    assert STATE in second.built
    assert any(said in line for line in second.said), second.said
    assert not (tmp_path / "escape").exists()


def test_a_bomb_of_zeros_is_not_unpacked(tmp_path: Path, fresh_server: RegistryServer) -> None:
    host = Host(tmp_path / "first", fresh_server.address)
    host.image()
    pushed(host, IMAGE)
    _, found = entry_at(host.registry, f"images-{IMAGE.key}") or pytest.fail("it was not pushed")
    bomb = zstd.compress(bytes(1 << 30))  # a GiB in some 30 KiB
    host.registry.put(digest_of(bomb), bomb)
    piece = replace(found.parts[0].pieces[0], digest=digest_of(bomb), size=len(bomb))
    wrong = replace(found, parts=(replace(found.parts[0], pieces=(piece,)), *found.parts[1:]))
    put_in_place(host, wrong)
    second = Host(tmp_path / "second", fresh_server.address)
    with peak() as most:
        second.image()
    assert second.built == [IMAGE]
    assert most.mib < 200
    assert any("a piece does not have the" in line for line in second.said)


def test_what_is_refused_is_not_fetched_again(tmp_path: Path, relay: Relay) -> None:
    def refuse(*_: object) -> None:
        raise StoreDamaged("it is not sound")

    host = Host(tmp_path / "first", relay.address)
    host.store.sources = []
    host.state()
    pushed(host)
    second = Host(tmp_path / "second", relay.address, accept=refuse)
    second.image()
    third = Host(tmp_path / "second", relay.address, accept=refuse)
    third.store.remove(IMAGE)
    relay.asked.clear()
    third.image()
    assert len([each for each in relay.asked if "/blobs/" in each]) == 1  # the configuration
    assert any("it was refused before: it is not sound" in line for line in third.said)


def test_damaged_content_is_not_pushed(tmp_path: Path, fresh_server: RegistryServer) -> None:
    host = Host(tmp_path / "first", fresh_server.address)
    host.store.sources = []
    disk = host.image() / "disk"
    times = disk.stat()
    disk.chmod(0o600)
    with disk.open("r+b") as file:
        file.seek(5 << 20)
        file.write(b"flipped")
    os.utime(disk, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(StoreDamaged, match="changed after it was saved"):
        pushed(host, IMAGE)


def test_a_repository_that_does_not_exist_is_no_success(tmp_path: Path, relay: Relay) -> None:
    host = Host(tmp_path / "first", relay.address)
    host.store.sources = []
    host.image()
    relay.answer = lambda handler: handler.command == "POST" and status(404)(handler)
    with pytest.raises(RegistryError, match="it answers 404"):
        pushed(host, IMAGE)


def test_thousands_of_small_files_travel_in_few_pieces(tmp_path: Path, server: RegistryServer) -> None:
    """A layer of memory is a directory with a file for each range that changed."""
    name = EntryName(kind="images", key="many")

    def build(draft: Path) -> None:
        (draft / "pages").mkdir()
        for number in range(3000):
            (draft / "pages" / f"{number:012x}").write_bytes(os.urandom(10) * (1 + number % 900))
            (draft / "pages" / f"{number:012x}").chmod(0o400)

    first = Host(tmp_path / "first", server.address)
    first.store.sources = []
    first.store.provide("images", name.key, "image", build)
    pushed(first, name)
    _, found = entry_at(first.registry, "images-many") or pytest.fail("it was not pushed")
    assert len(found.pieces) < 5
    second = Host(tmp_path / "second", server.address)
    place = second.store.provide("images", name.key, "image", build)
    assert name in second.store.fetched
    for number in range(3000):
        file = f"pages/{number:012x}"
        assert (place / file).read_bytes() == (first.store.place(name) / file).read_bytes()
    expect_whole(place)


SOAK = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.unit.registry.soak import work
work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[4]))
"""


@pytest.mark.thorough
def test_fifty_pushes_and_pulls_by_four_processes_lose_nothing(tmp_path: Path, server: RegistryServer) -> None:
    root = str(pytest_root())
    command = [sys.executable, "-c", SOAK]
    processes = [
        subprocess.Popen([*command, str(tmp_path / f"store{number}"), server.address, root, str(number)])
        for number in range(4)
    ]
    assert [process.wait(timeout=1200) for process in processes] == [0] * 4
