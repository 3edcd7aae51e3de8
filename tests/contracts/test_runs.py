"""Every notebook prints what is stored in it, and its verdicts hold with other parameters."""

import functools
import warnings

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


def assert_passed(outcome):
    """Say why it did not, or what is to be known of how it did."""
    if outcome.disturbed:
        warnings.warn(f"{outcome.notebook.stem}: {outcome.notes[-1]}", stacklevel=2)
    differences = "\n".join(f"{d.cell}: {d.stored!r} → {d.found!r}" for d in outcome.differences)
    said = f"{outcome.failing_cell}: {outcome.error}\n{outcome.traceback}\n{differences}"
    assert outcome.state == "passed", said


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_fresh_run_gives_the_stored_outputs(notebook):
    assert_passed(outcomes()[notebook])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_verdicts_hold_with_another_seed_and_fraud_rate(notebook):
    assert_passed(outcomes(*OTHER_PARAMETERS)[notebook])
