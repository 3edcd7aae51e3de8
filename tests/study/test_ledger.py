"""Reading answer files, and refusing malformed ones with file, line and field."""

import pytest

from companion.study.catalogue import (
    NotWrittenYetError,
    UnknownQuestionError,
    read_catalogue,
)
from companion.study.ledger import LedgerError, MissingNotebookError, read_answer, read_ledger
from companion.study.verdicts import Verdict
from companion.study.workbook import Workbook, WorkbookNotFoundError


def edited(workbook, old, new, stem="q02_small"):
    path = workbook.answers / f"{stem}.md"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_an_answer_is_read_whole(workbook):
    answer = read_answer(workbook.answers / "q02_small.md")
    assert (answer.id, answer.stem, answer.label) == (2, "q02_small", "Q02")
    assert [claim.verdict for claim in answer.claims] == [Verdict.WRONG, Verdict.HOLDS]
    assert answer.rubric[0].signals == ("two", "2")
    assert answer.sections["In one breath"] == "Two."


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("verdict: wrong", "verdict: false-ish", 13, "claims.0.verdict"),
        ("part: 1", "part: 9", 6, "part"),
        ("minutes: 5", "minutes: soon", 8, "minutes"),
        ("title: Small question\n", "", 2, "title"),
        ("level: E", "level: X", 7, "level"),
        ("level: E", "level: E\ncolour: red", 8, "colour"),
        ("topics: [numbers]", "topics: []", 9, "topics"),
        ("    why: They are two.\n", "", 11, "claims.0.why"),
        ("slug: small", "slug: tiny", 3, "slug"),
        ("id: sum-exists", "id: sum-is-three", 15, "claims.id"),
        ("title: Small question", "title: [a, b", 4, "front matter"),
        ("## Sources", "## Links", 36, "sections"),
        ("\nCounting.\n", "\n", 49, "Sources"),
    ],
)
def test_a_malformed_file_is_refused_with_line_and_field(workbook, old, new, line, field):
    path = edited(workbook, old, new)
    with pytest.raises(LedgerError) as refused:
        read_answer(path)
    error = refused.value
    assert (error.path, error.field) == (path, field)
    assert abs(error.line - line) <= 1
    assert f"q02_small.md, line {error.line}, field '{field}'" in str(error)


def test_a_file_without_front_matter_is_refused(workbook):
    path = workbook.answers / "q02_small.md"
    path.write_text("# no front matter\n")
    with pytest.raises(LedgerError, match="must begin with YAML"):
        read_answer(path)


def test_empty_front_matter_is_refused(workbook):
    path = workbook.answers / "q02_small.md"
    path.write_text("---\n---\n")
    with pytest.raises(LedgerError, match="empty"):
        read_answer(path)


def test_a_file_name_that_is_no_stem_is_refused(workbook):
    with pytest.raises(LedgerError, match="qNN_slug"):
        read_answer(workbook.answers / "notes.md")


def test_an_answer_without_a_notebook_is_an_error(workbook):
    workbook.notebook("q02_small").unlink()
    with pytest.raises(MissingNotebookError, match=r"q02_small\.md has no notebook"):
        read_ledger(workbook)


def test_the_catalogue_knows_written_and_unwritten_questions(workbook):
    catalogue = read_catalogue(workbook)
    assert list(catalogue.entries) == [2, 7, 9]
    assert catalogue.answer(7).slug == "other"
    assert [q and q.id for q in catalogue.neighbours(7)] == [2, None]
    with pytest.raises(NotWrittenYetError, match="Q09 · Later is not written yet"):
        catalogue.answer(9)


@pytest.mark.parametrize("number", [0, 51, -1, True, 1.5, "7"])
def test_an_unknown_question_number_is_named(workbook, number):
    with pytest.raises(UnknownQuestionError, match="Q01 to Q50"):
        read_catalogue(workbook).answer(number)


def test_a_question_both_written_and_unwritten_is_an_error(workbook):
    path = workbook.unwritten
    path.write_text(path.read_text().replace("id: 9", "id: 7"))
    with pytest.raises(LedgerError, match="Q07 is written already") as refused:
        read_catalogue(workbook)
    assert refused.value.line == 2


def test_the_workbook_is_found_from_any_folder_inside(workbook):
    assert Workbook.find(workbook.notebooks / "deep").root == workbook.root.resolve()


def test_outside_a_workbook_the_error_says_what_is_missing(tmp_path):
    with pytest.raises(WorkbookNotFoundError, match="notebooks/ and answers/"):
        Workbook.find(tmp_path)
