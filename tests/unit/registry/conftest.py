"""A registry, and stores that share it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_vmsnap.progress import Progress
from pytest_vmsnap.registry import Puller, open_registry, parse_address
from pytest_vmsnap.store import EntryName, Store

from ...registry_server import RegistryServer, Relay, relayed, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE = EntryName(kind="images", key="image1image1")
STATE = EntryName(kind="states", key="state1state1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with serving(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[RegistryServer]:
    directory = tmp_path / "registry"
    directory.mkdir()
    with serving(directory) as found:
        yield found


@pytest.fixture
def relay(fresh_server: RegistryServer) -> Iterator[Relay]:
    with relayed(fresh_server) as found:
        yield found


class Host:
    """A store of its own, with the registry at `address` as its source; `said` are its progress lines."""

    def __init__(self, path: Path, address: str, **options: object) -> None:
        self.said: list[str] = []
        progress = Progress(self.said.append)
        self.store = Store(path, progress=progress)
        self.registry = open_registry(parse_address(address))
        self.built: list[EntryName] = []
        accept = options.pop("accept", lambda *_: None)
        self.puller = Puller(
            self.store,
            self.registry,
            progress=progress,
            accept=accept,
            pinned=None,
            **options,  # type: ignore[arg-type]
        )
        self.store.sources = [self.puller]

    def image(self, data: bytes = b"") -> Path:
        """Provide the image: 40 MiB with data at three places, and `data` at the start."""

        def build(draft: Path) -> None:
            self.built.append(IMAGE)
            with (draft / "disk").open("wb") as file:
                file.write(data or b"start")
                for place in (5 << 20, 20 << 20):
                    file.seek(place)
                    file.write(DATA)
                file.truncate(40 << 20)
            (draft / "disk").chmod(0o400)

        return self.store.provide("images", IMAGE.key, "image one", build)

    def state(self) -> Path:
        """Provide a state that is built on the image."""
        return self.store.provide("states", STATE.key, "state one", self._build_state, depends_on=[IMAGE])

    def _build_state(self, draft: Path) -> list[EntryName]:
        self.image()
        self.built.append(STATE)
        (draft / "ram").write_bytes(b"memory" * 1000)
        (draft / "meta.json").write_text("{}")
        return [IMAGE]


DATA = os.urandom(3 << 20)
