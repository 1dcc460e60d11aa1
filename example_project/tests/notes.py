"""A client for the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap import Machine

ADDRESS = "http://localhost:8080"


class Notes:
    """Talks to the service with curl, from inside its machine."""

    def __init__(self, vm: Machine) -> None:
        self._vm = vm

    def put(self, name: str, text: str) -> int:
        """Store a note, and return the HTTP status."""
        options = ["-X", "PUT", "--data-binary", "@-", "-o", "/dev/null", "-w", "%{http_code}"]
        return int(self._curl(f"/notes/{name}", *options, text=text))

    def get(self, name: str) -> str:
        """Return the text of a note."""
        return self._curl(f"/notes/{name}", "--fail")

    def release(self) -> str:
        """Return the release that runs."""
        return self._curl("/release", "--fail").strip()

    def _curl(self, path: str, *options: str, text: str = "") -> str:
        return self._vm.run(["curl", "-sS", *options, f"{ADDRESS}{path}"], input=text, check=True).text
