"""What the pages of a built site load, and where their links lead."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Page(HTMLParser):
    """A page's anchors, its links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attributes if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        address = given.get("href") or given.get("src")
        if address:
            (self.links if tag == "a" else self.loaded).add(address)


def faults(site: Path) -> Iterator[str]:
    """A line for each link that leads nowhere within `site`, and for each thing that is loaded from elsewhere.

    The build itself checks what stands in the pages' sources; what these include, nobody else does.
    """
    root = site.resolve()
    pages = {path: Page(path.read_text()) for path in sorted(root.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(root)
        for address in sorted(page.loaded):
            parts = urlsplit(address)
            if parts.netloc:
                yield f"{name} loads {address}"
            elif (
                name.name != "404.html"
                and not parts.scheme
                and not (path.parent / unquote(parts.path)).exists()
            ):
                yield f"{name} loads {address}, which is not there"
        for link in sorted(page.links) if name.name != "404.html" else []:  # whose links are the server's
            place, _, anchor = unquote(link).partition("#")
            target = (path.parent / place).resolve() if place else path
            target = target / "index.html" if target.is_dir() else target
            if urlsplit(link).scheme:
                continue
            if not target.exists() or (anchor and anchor not in pages[target].anchors):
                yield f"{name}: {link} leads nowhere"
