"""Validation: every notebook still runs, prints what is stored in it, and holds with other seeds.

``pytest --nbval`` and papermill do this one notebook at a time, each from a cold kernel. This room
drives the same parts, nbclient for execution, papermill for parameters, nbval for the comparison,
several kernels at once, and leaves out what provably has not changed.

    selection    which notebooks, which shard, which parameters, and what is wrong with them
    fingerprint  what a result depends on, by content, and the record of passed runs
    engine       one notebook, executed cell by cell with its times
    comparison   nbval's own comparison of stored with new outputs
    storing      new outputs written back into the notebook, without noise
    report       one HTML page
    table        the live table
    run          ``validate``, which puts them together
"""

from companion.study.validation.outcome import Difference, Outcome, Progress, ValidationError
from companion.study.validation.run import validate
from companion.study.validation.selection import (
    notebooks_named,
    parse_parameters,
    parse_shard,
)
from companion.study.validation.table import live_table

__all__ = [
    "Difference",
    "Outcome",
    "Progress",
    "ValidationError",
    "live_table",
    "notebooks_named",
    "parse_parameters",
    "parse_shard",
    "validate",
]
