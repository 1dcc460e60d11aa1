#!/usr/bin/python3
"""notesd stores notes and serves them over HTTP.

    PUT    /notes/NAME   204: the note is on disk; 507: the disk is full; 413: it is over 1 MiB
    GET    /notes/NAME   200 and the text; 404
    DELETE /notes/NAME   204; 404
    GET    /notes        200 and the names, one per line
    GET    /release      200 and the number of the release

Each note is a separate file. A change that was answered with 204 survives a power cut.
"""

import errno
import os
import re
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ADDRESS = ("", 8080)
LIMIT_BYTES = 1 << 20
NAME = re.compile(r"/notes/([a-z0-9][a-z0-9-]{0,63})")
RELEASE = Path(__file__).with_name("VERSION").read_text().strip()
NOTES = Path(os.environ["STATE_DIRECTORY"]) / RELEASE

writing = threading.Lock()


def store(path: Path, content: bytes) -> None:
    """Write the whole note or nothing, and return when it is on disk."""
    draft = path.with_suffix(".draft")
    with writing:
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            sync(path.parent)
        except OSError:
            draft.unlink(missing_ok=True)
            raise


def remove(path: Path) -> None:
    """Remove the note, and return when it is gone from the disk."""
    with writing:
        path.unlink()
        sync(path.parent)


def sync(directory: Path) -> None:
    """Flush the names in the directory to disk: fsync(2) of a file does not."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_GET(self) -> None:
        if self.path == "/release":
            self.answer(HTTPStatus.OK, f"{RELEASE}\n".encode())
        elif self.path == "/notes":
            names = sorted(path.stem for path in NOTES.glob("*.note"))
            self.answer(HTTPStatus.OK, "".join(f"{name}\n" for name in names).encode())
        elif path := self.note():
            try:
                self.answer(HTTPStatus.OK, path.read_bytes())
            except FileNotFoundError:
                self.answer(HTTPStatus.NOT_FOUND)

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if length > LIMIT_BYTES:
            self.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif path := self.note():
            try:
                store(path, self.rfile.read(length))
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self.answer(HTTPStatus.INSUFFICIENT_STORAGE)
            else:
                self.answer(HTTPStatus.NO_CONTENT)

    def do_DELETE(self) -> None:
        if path := self.note():
            try:
                remove(path)
            except FileNotFoundError:
                self.answer(HTTPStatus.NOT_FOUND)
            else:
                self.answer(HTTPStatus.NO_CONTENT)

    def note(self) -> Path | None:
        """Return the note's file, or answer 404 and return None if the path names no note."""
        if match := NAME.fullmatch(self.path):
            return NOTES / f"{match[1]}.note"
        self.answer(HTTPStatus.NOT_FOUND)
        return None

    def answer(self, status: HTTPStatus, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def say_ready() -> None:
    """Tell systemd that the port is open: sd_notify(3)."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.connect(address.replace("@", "\0", 1))
            connection.send(b"READY=1")


def main() -> None:
    NOTES.mkdir(exist_ok=True)
    with ThreadingHTTPServer(ADDRESS, Handler) as server:
        say_ready()
        server.serve_forever()


if __name__ == "__main__":
    main()
