"""Full-text search without a server: an inverted index that a page loads as a script.

A browser that opens the book from a file may not fetch other files, but it runs a `<script>` from
them. So the index is JavaScript: the sections of the book, and for each term the sections that
contain it with their weights. Terms are what Manning, Raghavan and Schütze call a case-folded
tokenisation (Introduction to Information Retrieval, 2008, chapter 2), with identifiers such as
`retry_after` kept whole and in parts; weights are term counts, damped, and more for titles.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass

from bs4 import BeautifulSoup, Tag

from companion.study.book.contents import Leaf
from companion.study.book.rendering import HEADINGS

TERM = re.compile(r"\w+")
IN_TITLE, IN_HEADING = 8.0, 4.0
BLOCKS = {"p", "li", "td", "th", "pre", "div", "dt", "dd", "br"}
EXCERPT = 2000  # characters of a section that results may quote


@dataclass(frozen=True)
class Section:
    """A stretch of a page under one heading: what a search result points to."""

    url: str
    page: str
    heading: str
    text: str
    code: str


def sections_of(leaf: Leaf, soup: BeautifulSoup) -> list[Section]:
    """A page cut at its headings. What stands before the first belongs to the page itself."""
    sections: list[Section] = []
    url, heading = str(leaf.target), leaf.title
    prose: list[str] = []
    code: list[str] = []

    def close() -> None:
        if prose or code:
            text = " ".join("".join(prose).split())
            sections.append(Section(url, leaf.title, heading, text, "\n".join(code)))

    for element in soup.descendants:
        if isinstance(element, Tag):
            if element.name in HEADINGS:
                close()
                prose, code = [], []
                heading, url = (
                    " ".join(element.get_text().split()),
                    f"{leaf.target}#{element['id']}",
                )
            elif "source" in element.get_attribute_list("class"):
                code.append(element.get_text())
            elif element.name in BLOCKS:
                prose.append(" ")
        elif not element.find_parent((*HEADINGS,)) and not element.find_parent(class_="source"):
            prose.append(str(element))
    close()
    return sections


def terms(text: str) -> list[str]:
    """The searchable terms of a text, with repetitions; accents and case folded away."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in folded if not unicodedata.combining(c))
    found = []
    for term in TERM.findall(plain):
        parts = [part for part in term.split("_") if part]
        found.extend([term, *parts] if len(parts) > 1 else parts)
    return found


def index_script(sections: list[Section]) -> str:
    """The index as a script that defines `BOOK_INDEX`.

    `sections` holds `[url, page, heading, excerpt]`; `terms` maps a term to a flat list
    `[section, weight, section, weight, …]` with the term's rarity folded into the weight.
    """
    postings: dict[str, list[tuple[int, float]]] = {}
    for number, section in enumerate(sections):
        weights: defaultdict[str, float] = defaultdict(float)
        for text, factor in (
            (section.page, IN_TITLE),
            (section.heading, IN_HEADING),
            (f"{section.text} {section.code}", 1.0),
        ):
            for term, count in Counter(terms(text)).items():
                weights[term] += factor * (1 + math.log(count))
        for term, weight in weights.items():
            postings.setdefault(term, []).append((number, weight))
    flat = {
        term: [
            value
            for number, weight in found
            for value in (number, round(weight * math.log(1 + len(sections) / len(found)), 2))
        ]
        for term, found in sorted(postings.items())
    }
    records = [[s.url, s.page, s.heading, s.text[:EXCERPT]] for s in sections]
    index = {"sections": records, "terms": flat}
    return f"const BOOK_INDEX = {json.dumps(index, ensure_ascii=False, separators=(',', ':'))};\n"
