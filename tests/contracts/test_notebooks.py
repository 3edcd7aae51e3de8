"""What every question's notebook keeps: its cells in order, short, run, and readable by all."""

import ast

import nbformat
import pytest

REQUIRED = (
    "title",
    "parameters",
    "open",
    "attempt",
    "received",
    "run-1",
    "verdict",
    "say-it",
    "exercise",
    "check",
    "follow-ups",
    "recall",
)
LONGEST_CELL = 30  # lines; what is longer belongs in the companion
LARGEST_NOTEBOOK = 1_000_000  # bytes


@pytest.fixture
def notebook(workbook, answer):
    return nbformat.read(workbook.notebook(answer.stem), as_version=nbformat.NO_CONVERT)


@pytest.fixture
def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cell(notebook, name):
    return next(cell for cell in notebook.cells if cell.id == name)


def test_it_is_a_valid_notebook_for_any_jupyter(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"


def test_its_cells_have_the_contracts_names_in_order(notebook):
    names = [cell.id for cell in notebook.cells]
    places = [names.index(name) for name in REQUIRED]
    assert places == sorted(places)
    assert names[0] == "title"


def test_parameters_can_be_injected(notebook):
    parameters = cell(notebook, "parameters")
    assert parameters.metadata.tags == ["parameters"]
    assert "SEED =" in parameters.source


def test_cells_are_short(code_cells):
    long = {c.id: n for c in code_cells if (n := len(c.source.splitlines())) > LONGEST_CELL}
    assert not long


def test_it_was_run_from_top_to_bottom_without_an_error(code_cells):
    assert [c.execution_count for c in code_cells] == list(range(1, len(code_cells) + 1))
    assert not [c.id for c in code_cells for o in c.outputs if o.output_type == "error"]


def test_every_claim_is_run_and_pictured(notebook, code_cells):
    runs = [c.id for c in notebook.cells if c.id.startswith("run-")]
    assert len(runs) >= 3
    pictures = [o for c in code_cells for o in c.outputs if "image/png" in o.get("data", {})]
    assert pictures, "at least one figure worth looking at"


def test_every_picture_has_alternative_text(code_cells):
    for c in code_cells:
        for output in c.outputs:
            for kind in output.get("data", {}):
                if kind.startswith("image/"):
                    alt = output.metadata.get(kind, {}).get("alt", "")
                    assert len(alt.split()) >= 5, c.id


def test_no_widget_state_is_stored(notebook):
    assert "widgets" not in notebook.metadata
    assert "application/vnd.jupyter.widget-view+json" not in nbformat.writes(notebook)


def test_the_verdicts_are_computed_not_typed(notebook, answer):
    tree = ast.parse(cell(notebook, "verdict").source)
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    findings = [c for c in calls if getattr(c.func, "id", "") == "found"]
    claims = [claim for claim in answer.claims if claim.verdict.value != "unmeasured"]
    assert len(findings) >= len(claims)
    for finding in findings:
        assert finding.keywords
        for keyword in finding.keywords:
            names = [n for n in ast.walk(keyword.value) if isinstance(n, ast.Name)]
            assert names, f"{keyword.arg}= is a constant, not a measurement"


def test_hint_and_solution_stand_commented_out(notebook):
    lines = cell(notebook, "check").source.splitlines()
    assert lines[0].startswith("q.check(")
    assert lines[1:] == ["# q.hint()", "# q.solution()"]


def test_no_path_of_a_machine_and_no_warning_is_stored(notebook, workbook):
    text = nbformat.writes(notebook)
    assert str(workbook.root) not in text
    assert "site-packages" not in text
    assert "Warning:" not in text


def test_it_is_small_enough_to_review(notebook):
    assert len(nbformat.writes(notebook)) < LARGEST_NOTEBOOK
