"""Servers and workers killed, no row lost or twice: `benchmarks/job_crashes.py` in short."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def crashes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        module = importlib.import_module("benchmarks.job_crashes")
        yield module
        sys.modules.pop(module.__name__, None)


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
@pytest.mark.parametrize("seed", range(3))
def test_no_row_is_lost_or_scored_twice_whatever_is_killed(crashes, seed, store, request):
    server = None if store == "sqlite" else request.getfixturevalue("postgresql_url")
    found = crashes.crash_run(seed, kills=4, server=server)
    assert found.rows == crashes.FILES * crashes.ROWS
    assert found.clean, found


def test_a_run_that_loses_or_repeats_rows_would_be_seen(crashes):
    clean = crashes.CrashRun(100, 0, 0, 0, 0, kills=4, attempts=3)
    assert clean.clean
    for field in ("lost", "twice", "wrong", "jobs_too_many"):
        assert not crashes.CrashRun(**{**clean.__dict__, field: 1}).clean
