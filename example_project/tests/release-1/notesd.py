#!/usr/bin/python3
"""notesd as shipped in release 1: all notes are in one file, which each change rewrites."""

import json
import os
import re
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

NAME = re.compile(r"/notes/([a-z0-9][a-z0-9-]{0,63})")
NOTES = Path(os.environ["STATE_DIRECTORY"]) / "1" / "notes.json"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        match = NAME.fullmatch(self.path)
        text = json.loads(NOTES.read_text()).get(match[1]) if match else None
        if self.path == "/release":
            text = "1\n"
        self.answer(HTTPStatus.OK if text is not None else HTTPStatus.NOT_FOUND, text or "")

    def do_PUT(self) -> None:
        match = NAME.fullmatch(self.path)
        if not match:
            self.answer(HTTPStatus.NOT_FOUND)
            return
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        store(json.loads(NOTES.read_text()) | {match[1]: text})
        self.answer(HTTPStatus.NO_CONTENT)

    def answer(self, status: HTTPStatus, text: str = "") -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


def store(notes: dict[str, str]) -> None:
    draft = NOTES.with_suffix(".draft")
    with draft.open("w") as file:
        json.dump(notes, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(NOTES)
    directory = os.open(NOTES.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def main() -> None:
    NOTES.parent.mkdir(exist_ok=True)
    if not NOTES.exists():
        store({})
    with HTTPServer(("", 8080), Handler) as server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
        systemd.send(b"READY=1")
        server.serve_forever()


if __name__ == "__main__":
    main()
