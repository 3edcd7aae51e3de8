"""Links between pages: rewritten from the checkout's files to the book's, and checked.

In the checkout a notebook links to `../answers/q23_circuit_breaker.md`; in the book that file is a
page. A link to a file that is no page (code, a picture) takes the file along as plain text or as it
is. A link that leads nowhere stops the book: nobody finds it later.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

from companion.study.book.contents import BookError, Leaf

ATTRIBUTES = {"a": "href", "img": "src"}
PLAIN_TEXT = {".cfg", ".ini", ".lock", ".md", ".py", ".toml", ".yaml", ".yml"}


class BrokenLinkError(BookError):
    """Links that lead nowhere; `broken` holds (source, link) pairs."""

    def __init__(self, broken: list[tuple[PurePosixPath, str]]) -> None:
        lines = [f"  {source}: {link}" for source, link in broken]
        super().__init__("these links lead nowhere:\n" + "\n".join(lines))
        self.broken = tuple(broken)


@dataclass
class Links:
    """Rewrites the links of one book; collects the files to take along and the broken links."""

    root: Path
    pages: Mapping[PurePosixPath, tuple[Leaf, frozenset[str]]]
    taken: dict[PurePosixPath, PurePosixPath] = field(default_factory=dict)
    broken: list[tuple[PurePosixPath, str]] = field(default_factory=list)

    def rewrite(self, leaf: Leaf, soup: BeautifulSoup) -> None:
        """Point every link of a page at the book's own files."""
        for tag in soup.find_all(list(ATTRIBUTES)):
            attribute = ATTRIBUTES[tag.name]
            link = str(tag.get(attribute) or "")
            if urlsplit(link).scheme or link.startswith("//") or not link:
                continue
            self._rewrite_one(leaf, tag, attribute, link)

    def refuse_broken(self) -> None:
        """Raises BrokenLinkError when any page had a link that leads nowhere."""
        if self.broken:
            raise BrokenLinkError(self.broken)

    def _rewrite_one(self, leaf: Leaf, tag: Tag, attribute: str, link: str) -> None:
        parts = urlsplit(link)
        source = self._source(leaf, unquote(parts.path)) if parts.path else leaf.source
        fragment = unquote(parts.fragment)
        if source is not None and source in self.pages:
            page, ids = self.pages[source]
            if fragment and fragment not in ids:
                self.broken.append((leaf.source, link))
            target = page.target
        elif source and (self.root / source).is_file():
            target = self.taken.setdefault(source, _taken_along(source))
        else:
            self.broken.append((leaf.source, link))
            return
        # A link within the page stays one, so that it also works in a saved copy of the page.
        path = _way(leaf.target, target) if parts.path else ""
        tag[attribute] = path + (f"#{fragment}" if fragment else "")

    def _source(self, leaf: Leaf, path: str) -> PurePosixPath | None:
        """The linked file relative to the checkout; None when it lies outside."""
        joined = os.path.normpath(leaf.source.parent / path)
        return None if joined.startswith("..") else PurePosixPath(joined)


def ids_in(soup: BeautifulSoup) -> frozenset[str]:
    """Every place in a page that a link can lead to."""
    return frozenset(str(tag["id"]) for tag in soup.find_all(id=True))


def _taken_along(source: PurePosixPath) -> PurePosixPath:
    # Browsers show .txt and offer to download .py.
    suffix = ".txt" if source.suffix in PLAIN_TEXT or not source.suffix else ""
    return PurePosixPath("files", f"{source}{suffix}")


def _way(page: PurePosixPath, target: PurePosixPath) -> str:
    return PurePosixPath(os.path.relpath(target, page.parent)).as_posix()
