"""Every notebook prints what is stored in it, and its verdicts hold with other parameters."""

import functools

import pytest

from companion.study.validation import notebooks_named, parse_parameters, validate
from companion.study.workbook import Workbook

ROOT = Workbook.find().root
NOTEBOOKS = notebooks_named([], ROOT)
OTHER_PARAMETERS = ("seed=7", "fraud_rate=0.01")

# The first test of either kind waits for all notebooks.
pytestmark = pytest.mark.timeout(900)


@functools.cache
def outcomes(*parameters):
    """One validation of all notebooks; each test looks at one of its outcomes."""
    results = validate(
        NOTEBOOKS, root=ROOT, fresh=True, jobs=2, parameters=parse_parameters(list(parameters))
    )
    return {outcome.notebook: outcome for outcome in results}


def said(outcome):
    """Why it did not pass, for the person who reads the test's report."""
    differences = "\n".join(f"{d.cell}: {d.stored!r} → {d.found!r}" for d in outcome.differences)
    return f"{outcome.failing_cell}: {outcome.error}\n{outcome.traceback}\n{differences}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_fresh_run_gives_the_stored_outputs(notebook):
    outcome = outcomes()[notebook]
    assert outcome.state == "passed", said(outcome)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_verdicts_hold_with_another_seed_and_fraud_rate(notebook):
    outcome = outcomes(*OTHER_PARAMETERS)[notebook]
    assert outcome.state == "passed", said(outcome)
