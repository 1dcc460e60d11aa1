"""A real registry (Debian's docker-registry) on the loopback interface, and a relay before it that can fail."""

from __future__ import annotations

import base64
import http.client
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

USER, PASSWORD = "tester", "a-secret-word"
START_SECONDS = 60.0
CONFIGURATION = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http:
  addr: 127.0.0.1:{port}
{more}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryServer:
    """A registry at `host`, with its files in `root`; `certificate` is what signs its own, None without TLS."""

    host: str
    root: Path
    certificate: Path | None

    @property
    def address(self) -> str:
        return f"oci://{self.host}/team/states"

    def blobs(self) -> list[Path]:
        """The files of all blobs, manifests and configurations among them."""
        return sorted((self.root / "docker/registry/v2/blobs/sha256").glob("*/*/data"))


@contextmanager
def serving(directory: Path, *, tls: bool = False, login: bool = False) -> Iterator[RegistryServer]:
    """A registry with its files in `directory`, until the block ends."""
    port, more = free_port(), ""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    if tls:
        subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
        subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        more += f"  tls: {{certificate: {certificate}, key: {key}}}\n"
    if login:
        passwords = directory / "htpasswd"
        make = ["htpasswd", "-Bbn", USER, PASSWORD]
        passwords.write_text(subprocess.run(make, check=True, capture_output=True, text=True).stdout)
        more += f"auth: {{htpasswd: {{realm: test, path: {passwords}}}}}\n"
    configuration = directory / "config.yml"
    root = directory / "files"
    configuration.write_text(CONFIGURATION.format(root=root, port=port, more=more))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", configuration], stdout=log, stderr=log)
    try:
        found = RegistryServer(host=f"127.0.0.1:{port}", root=root, certificate=certificate if tls else None)
        _wait(found, process)
        yield found
    finally:
        process.terminate()
        process.wait()


def auth_file(path: Path, host: str, password: str = PASSWORD) -> Path:
    """Write the login for `host` to `path`, as ``podman login`` does (containers-auth.json(5))."""
    import json

    secret = base64.b64encode(f"{USER}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": secret}}}))
    return path


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait(server: RegistryServer, process: subprocess.Popen[bytes]) -> None:
    scheme = "https" if server.certificate else "http"
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            requests.get(f"{scheme}://{server.host}/v2/", verify=str(server.certificate or ""), timeout=5)
        except requests.ConnectionError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.05)
        else:
            return


@dataclass
class Relay:
    """Passes requests on to `server`, except those that `answer` answers: it returns whether it did."""

    server: RegistryServer
    answer: Callable[[BaseHTTPRequestHandler], bool] = field(default=lambda _: False)
    port: int = 0
    asked: list[str] = field(default_factory=list)  # "METHOD /path"

    @property
    def address(self) -> str:
        return f"oci://127.0.0.1:{self.port}/team/states"


@contextmanager
def relayed(server: RegistryServer) -> Iterator[Relay]:
    relay = Relay(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            relay.asked.append(f"{self.command} {self.path}")
            if relay.answer(self):
                return
            length = int(self.headers.get("Content-Length") or 0)
            upstream = http.client.HTTPConnection(server.host, timeout=60)
            headers = {name: text for name, text in self.headers.items() if name.lower() != "host"}
            headers["Host"] = self.headers["Host"]  # so that the registry's own addresses lead here
            upstream.request(self.command, self.path, self.rfile.read(length), headers)
            got = upstream.getresponse()
            data = got.read()
            upstream.close()
            self.send_response(got.status)
            for name, text in got.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, text)
            size = got.getheader("Content-Length") if self.command == "HEAD" else len(data)
            self.send_header("Content-Length", str(size or 0))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_any  # noqa: N815 - as http.server calls them

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that gave up

    with Server(("127.0.0.1", 0), Handler) as listening:
        relay.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever, name="relay", daemon=True)
        thread.start()
        yield relay
        listening.shutdown()
