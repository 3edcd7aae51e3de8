"""The book: linked, searchable without a server, readable by everyone; and the slides."""

import base64
import json
import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from companion.study.book import (
    BrokenLinkError,
    MissingTitleError,
    UndescribedFigureError,
    UnknownNotebookError,
    build_book,
    build_slides,
)
from companion.study.book.search import index_script, sections_of, terms
from companion.study.book.slides import slides_in
from companion.study.workbook import Workbook

PIXEL = base64.b64encode(b"\x89PNG not much of a picture").decode()


TABLE = (
    "<table><thead><tr><th>a</th></tr></thead><tbody><tr><th>r</th><td>1</td></tr></tbody></table>"
)


def figure(alt="A line that rises from left to right"):
    metadata = {"image/png": {"alt": alt, "width": 300} if alt else {}}
    return new_output("display_data", {"image/png": PIXEL, "text/plain": "x"}, metadata=metadata)


def write(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), path)


@pytest.fixture
def shelf(workbook):
    """The workbook of two questions, with notebooks worth printing."""
    write(
        workbook.start_here,
        new_markdown_cell(
            "# Start here\n\n[Q02](q02_small.ipynb), [its figure](q02_small.ipynb#It-rises)"
        ),
    )
    write(
        workbook.notebook("q02_small"),
        new_markdown_cell("# Q02 · Small\n\n[what to say](../answers/q02_small.md)", id="title"),
        new_code_cell("SEED = 1", id="parameters"),
        new_markdown_cell("## It rises\n\nZebras rise.", id="prose"),
        new_code_cell(
            "draw_a_line(retry_after=3)",
            id="run-rises",
            outputs=[
                new_output("stream", name="stdout", text="one < two\n"),
                new_output("stream", name="stderr", text="careful\n"),
                figure(),
                new_output(
                    "execute_result",
                    {
                        "text/html": TABLE,
                        "text/plain": "t",
                    },
                ),
                new_output("execute_result", {"text/markdown": "**said**", "text/plain": "said"}),
                new_output("execute_result", {"text/plain": "plain result"}),
                new_output("execute_result", {"text/latex": "$x$"}),
                new_output(
                    "display_data",
                    {"image/svg+xml": "<svg/>"},
                    metadata={"image/svg+xml": {"alt": "An empty drawing"}},
                ),
                new_output("error", ename="E", evalue="v", traceback=["\x1b[31mred\x1b[0m"]),
                new_output(
                    "display_data",
                    {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "a slider"},
                ),
            ],
        ),
        new_markdown_cell("A remark.", id="remark"),
        new_markdown_cell("## Verdict", id="verdict-prose"),
        new_code_cell(
            "q.verdict()", id="verdict", outputs=[new_output("stream", name="stdout", text="wrong")]
        ),
    )
    write(
        workbook.notebook("q07_other"),
        new_markdown_cell(
            "# Q07 · Other\n\n[code](../answers/q07_other.py) [out](https://example.org)"
        ),
        new_markdown_cell("## It rises\n\n## It rises"),
    )
    write(
        workbook.notebooks / "demos" / "slider.ipynb",
        new_markdown_cell("# A slider\n\n[up](../q02_small.ipynb)"),
    )
    return workbook


@pytest.fixture
def book(shelf, tmp_path):
    return build_book(shelf, tmp_path / "book")


def page(book, name):
    return BeautifulSoup((book.index.parent / name).read_text(), "html.parser")


def hrefs(soup):
    return [link["href"] for link in soup.find_all("a", href=True)]


def test_every_notebook_and_answer_is_a_page(book):
    assert book.pages == 6
    found = {str(path.relative_to(book.index.parent)) for path in book.index.parent.rglob("*.html")}
    assert found == {
        "index.html",
        "00_start_here.html",
        "q02_small.html",
        "q07_other.html",
        "demos/slider.html",
        "answers/q02_small.html",
        "answers/q07_other.html",
    }


def test_the_contents_stand_under_their_parts_with_the_notebooks_own_titles(book):
    contents = page(book, "index.html").main
    assert [h.text for h in contents.find_all("h2")] == [
        "Begin here",
        "Part 1 · Foundation",
        "Demos",
    ]
    titles = [item.a.text for item in contents.find_all("li")]
    assert titles == ["Start here", "Q02 · Small", "Q07 · Other", "A slider"]
    assert "easy, 5 minutes, numbers" in contents.text


def test_each_page_leads_to_the_one_before_the_one_after_and_the_contents(book):
    soup = page(book, "answers/q02_small.html")
    assert soup.find("a", rel="prev")["href"] == "../q02_small.html"
    assert soup.find("a", rel="next")["href"] == "../q07_other.html"
    assert "../index.html" in hrefs(soup)
    assert page(book, "00_start_here.html").find("a", rel="prev") is None
    assert page(book, "demos/slider.html").find("a", rel="next") is None


def test_every_link_of_every_page_leads_to_a_file_of_the_book(book):
    for path in book.index.parent.rglob("*.html"):
        soup = BeautifulSoup(path.read_text(), "html.parser")
        for link in [*hrefs(soup), *(s["src"] for s in soup.find_all("script"))]:
            if not link.startswith(("https:", "#")):
                assert (path.parent / link.partition("#")[0]).is_file(), (path, link)


def test_links_between_files_become_links_between_pages(book):
    assert {"q02_small.html", "q02_small.html#It-rises"} <= set(
        hrefs(page(book, "00_start_here.html"))
    )
    assert "answers/q02_small.html" in hrefs(page(book, "q02_small.html"))
    assert "../q02_small.html" in hrefs(page(book, "demos/slider.html"))
    assert "https://example.org" in hrefs(page(book, "q07_other.html"))


def test_linked_code_comes_along_as_text(book, shelf):
    assert "files/answers/q07_other.py.txt" in hrefs(page(book, "q07_other.html"))
    taken = book.index.parent / "files/answers/q07_other.py.txt"
    assert taken.read_text() == shelf.exercise("q07_other").read_text()


@pytest.mark.parametrize(
    "link", ["q99_gone.ipynb", "#no-such-heading", "q07_other.ipynb#nowhere", "../../etc/passwd"]
)
def test_a_link_that_leads_nowhere_stops_the_book_and_is_named(shelf, tmp_path, link):
    write(shelf.notebook("q02_small"), new_markdown_cell(f"# Q02\n\n[x]({link})"))
    with pytest.raises(BrokenLinkError) as stopped:
        build_book(shelf, tmp_path / "book")
    assert f"notebooks/q02_small.ipynb: {link}" in str(stopped.value)
    assert not (tmp_path / "book").exists()


def test_a_failed_build_leaves_the_last_book(book, shelf):
    before = book.index.read_text()
    write(shelf.start_here, new_markdown_cell("no title"))
    with pytest.raises(MissingTitleError, match=r"00_start_here\.ipynb has no first-level heading"):
        build_book(shelf, book.index.parent)
    assert book.index.read_text() == before


def test_a_new_book_replaces_the_old_one_whole(book, shelf):
    (shelf.notebooks / "demos" / "slider.ipynb").unlink()
    build_book(shelf, book.index.parent)
    assert not (book.index.parent / "demos").exists()


def test_every_kind_of_output_is_shown_and_widgets_by_their_text(book):
    soup = page(book, "q02_small.html")
    text = soup.main.text
    for words in ("one < two", "careful", "plain result", "said", "$x$", "red", "a slider"):
        assert words in text
    assert soup.find("img", alt="A line that rises from left to right")["width"] == "300"
    assert soup.find("img", alt="An empty drawing")
    assert not soup.main.find("script")


def test_a_figure_without_words_stops_the_book(shelf, tmp_path):
    write(
        shelf.notebook("q02_small"),
        new_markdown_cell("# Q02"),
        new_code_cell("draw()", id="run-draw", outputs=[figure(alt="")]),
    )
    with pytest.raises(UndescribedFigureError, match=r"q02_small\.ipynb, cell 'run-draw'"):
        build_book(shelf, tmp_path / "book")


def test_pages_can_be_read_by_a_screen_reader_and_by_keyboard(book):
    for path in book.index.parent.rglob("*.html"):
        soup = BeautifulSoup(path.read_text(), "html.parser")
        assert soup.html["lang"] == "en"
        assert soup.title.text
        assert len(soup.find_all("main")) == 1
        assert len(soup.main.find_all("h1")) == 1
        assert soup.find("a", class_="skip")["href"] == "#main"
        assert soup.find("label", attrs={"for": "search"})
        assert all(nav["aria-label"] for nav in soup.find_all("nav"))
        assert all(head.get("scope") for head in soup.find_all("th"))
        assert all(block.get("tabindex") == "0" for block in soup.find_all("pre"))
        ids = [tag["id"] for tag in soup.find_all(id=True)]
        assert len(ids) == len(set(ids))


def test_an_answer_page_has_the_words_and_the_ledger_and_no_front_matter(book):
    soup = page(book, "answers/q02_small.html")
    headings = [heading.text for heading in soup.main.find_all("h2")]
    assert headings[:2] == ["In one breath", "In two minutes"]
    assert "The received claims, run" in headings
    assert [cell.text for cell in soup.main.tbody.tr.find_all("td")][:2] == [
        "One and one are three.",
        "wrong",
    ]
    assert "follow_ups:" not in soup.text


def test_nothing_is_fetched_from_anywhere(book):
    for path in [*book.index.parent.rglob("*.html"), *book.index.parent.rglob("static/*")]:
        outside = re.findall(r"(?:src|href)=.https?://[^\"']+|@import|url\(http", path.read_text())
        assert [link for link in outside if "example.org" not in link] == [], path


def test_progress_counts_the_pages(shelf, tmp_path):
    seen = []
    build_book(shelf, tmp_path / "book", on_page=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(7)]


def test_terms_fold_case_and_accents_and_keep_identifiers_whole_and_in_parts():
    assert terms("Café retry_after=3") == ["cafe", "retry_after", "retry", "after", "3"]


def index_of(book):
    script = (book.index.parent / "static" / "search-index.js").read_text()
    return json.loads(script.removeprefix("const BOOK_INDEX = ").removesuffix(";\n"))


def test_the_index_finds_prose_code_and_output_in_their_section(book):
    index = index_of(book)
    for term in ("zebras", "retry_after", "careful"):
        numbers = index["terms"][term][::2]
        assert [index["sections"][n][0] for n in numbers] == ["q02_small.html#It-rises"]


def test_excerpts_are_prose_and_outputs_without_code(book):
    sections = {section[0]: section for section in index_of(book)["sections"]}
    excerpt = sections["q02_small.html#It-rises"][3]
    assert excerpt.startswith("Zebras rise.")
    assert "draw_a_line" not in excerpt


def test_a_title_weighs_more_than_a_word_in_the_text():
    leaf = type("L", (), {"target": "a.html", "title": "Page"})()
    soup = BeautifulSoup("<h2 id='x'>breaker</h2><p>limiter</p>", "html.parser")
    script = index_script(sections_of(leaf, soup))
    flat = json.loads(script.removeprefix("const BOOK_INDEX = ").removesuffix(";\n"))["terms"]
    assert flat["breaker"][1] > flat["limiter"][1]


@pytest.mark.browser
def test_search_works_from_a_file_with_no_server(book, chromium):
    tab = chromium.new_page()
    outside = []
    tab.on("request", lambda r: outside.append(r.url) if r.url.startswith("http") else None)
    tab.goto(book.index.as_uri())
    tab.keyboard.press("/")
    tab.keyboard.type("ZÉBR")
    assert tab.inner_text("#results [role=status]") == "1 section"
    assert "Zebras" in tab.inner_text("#results mark")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/q02_small.html#It-rises")
    assert outside == []


@pytest.mark.browser
def test_search_wants_every_word_says_when_nothing_fits_and_closes(book, chromium):
    tab = chromium.new_page()
    tab.goto((book.index.parent / "answers" / "q02_small.html").as_uri())
    tab.fill("#search", "zebras careful rise")
    assert tab.get_attribute("#results a", "href") == "../q02_small.html#It-rises"
    tab.fill("#search", "zebras constructor")
    assert tab.inner_text("#results [role=status]") == "No sections"
    tab.keyboard.press("Escape")
    assert tab.is_hidden("#results")


@pytest.mark.browser
def test_figures_and_rich_outputs_stay_on_white_in_the_dark(book, chromium):
    tab = chromium.new_page(color_scheme="dark")
    tab.goto((book.index.parent / "q02_small.html").as_uri())
    colour = "element => getComputedStyle(element).backgroundColor"
    assert tab.eval_on_selector("html", colour) != "rgb(255, 255, 255)"
    assert tab.eval_on_selector("figure", colour) == "rgb(255, 255, 255)"


@pytest.mark.browser
def test_on_paper_there_is_no_navigation_and_no_dark(book, chromium):
    tab = chromium.new_page(color_scheme="dark")
    tab.goto((book.index.parent / "q02_small.html").as_uri())
    tab.emulate_media(media="print")
    assert tab.is_hidden("header")
    assert tab.is_hidden("nav.bottom")
    colour = "element => getComputedStyle(element).color"
    assert tab.eval_on_selector("main p", colour) == "rgb(0, 0, 0)"


def test_slides_are_one_file_that_needs_nothing_else(shelf, tmp_path):
    made = build_slides(shelf, "q02", tmp_path / "slides")
    assert made == tmp_path / "slides" / "q02_small.html"
    soup = BeautifulSoup(made.read_text(), "html.parser")
    assert not soup.find_all(["link", "iframe"])
    assert not soup.find_all("script", src=True)
    assert soup.title.text == "Q02 · Small"


def test_a_slide_is_prose_its_code_and_the_remark_on_it(shelf, tmp_path):
    soup = BeautifulSoup(
        build_slides(shelf, "q02_small.ipynb", tmp_path).read_text(), "html.parser"
    )
    slides = soup.find_all("section")
    assert [slide.find(["h1", "h2"]).text for slide in slides] == [
        "Q02 · Small",
        "It rises",
        "Verdict",
    ]
    assert "A remark." in slides[1].text
    assert "SEED" not in soup.main.text


def test_the_code_of_a_figure_is_folded_under_it(shelf, tmp_path):
    soup = BeautifulSoup(build_slides(shelf, "q02", tmp_path).read_text(), "html.parser")
    folded = soup.details
    assert "draw_a_line" in folded.text
    assert folded.find_previous("figure")


def test_links_to_other_files_leave_their_text_or_nothing(shelf, tmp_path):
    write(
        shelf.notebook("q02_small"),
        new_markdown_cell("# Q02\n\n[before](a.ipynb) · [after](b.ipynb)\n\nSee [this](c.ipynb)."),
    )
    soup = BeautifulSoup(build_slides(shelf, "q02", tmp_path).read_text(), "html.parser")
    assert soup.main.find_all("a") == []
    assert [p.text for p in soup.main.find_all("p")] == ["See this."]


def test_code_that_only_displays_is_left_out_of_slides(shelf, tmp_path):
    soup = BeautifulSoup(build_slides(shelf, "q02", tmp_path).read_text(), "html.parser")
    assert "q.verdict" not in soup.main.text
    assert "wrong" in soup.find_all("section")[-1].text


def test_each_piece_of_code_has_a_slide_of_its_own():
    cells = "".join(f"<div class='cell code' id='cell-{n}'>{n}</div>" for n in range(3))
    assert len(slides_in(BeautifulSoup(cells, "html.parser"))) == 3


def test_an_unknown_notebook_names_the_known_ones(shelf, tmp_path):
    with pytest.raises(UnknownNotebookError, match=r"'q50'; there are: 00_start_here, slider, q02"):
        build_slides(shelf, "q50", tmp_path)


def test_a_workbook_without_notebooks_says_so(tmp_path):
    with pytest.raises(UnknownNotebookError, match="there are: none"):
        build_slides(Workbook(tmp_path), "q01", tmp_path)


@pytest.mark.browser
def test_slides_turn_by_keyboard_and_keep_their_place(shelf, tmp_path, chromium):
    tab = chromium.new_page()
    tab.goto(build_slides(shelf, "q02", tmp_path).as_uri())
    assert tab.inner_text("output") == "1 / 3"
    tab.keyboard.press("ArrowRight")
    assert tab.is_visible("#slide-2")
    assert tab.is_hidden("#slide-1")
    tab.keyboard.press("End")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("output") == "3 / 3"
    tab.reload()
    assert tab.is_visible("#slide-3")
    tab.keyboard.press("Home")
    tab.wait_for_url("**#slide-1")
    assert tab.inner_text("output") == "1 / 3"


@pytest.mark.browser
def test_a_slide_with_too_much_on_it_is_made_smaller(workbook, tmp_path, chromium):
    text = "\n\n".join(f"Paragraph {n}." for n in range(20))
    write(workbook.notebook("q02_small"), new_markdown_cell("# Q02"), new_markdown_cell(text))
    tab = chromium.new_page(viewport={"width": 1280, "height": 720})
    tab.goto(build_slides(workbook, "q02", tmp_path).as_uri())
    assert tab.eval_on_selector(".now .fit", "element => element.style.transform") == ""
    tab.keyboard.press("ArrowRight")
    assert "scale" in tab.eval_on_selector(".now .fit", "element => element.style.transform")
