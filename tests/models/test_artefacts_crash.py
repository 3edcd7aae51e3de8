"""A save may be killed at any point: the artefact is there, whole, or it is not there."""

import multiprocessing
import os
import random
import signal
import sys
import time
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from companion.models.artefact_metadata import TrainingRecord
from companion.models.artefacts import load_artefact, save_artefact

# A forkserver's children come from a process without threads, with the libraries already loaded.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["companion.models.artefacts"])

FILE_SYSTEM_STEPS = {"open", "os.mkdir", "os.rename", "os.listdir", "os.scandir", "os.remove"}
RECORD = TrainingRecord(
    "logistic",
    "v1",
    (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)),
    seed=0,
    metrics={},
)


def trained():
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
    return LogisticRegression().fit(rows, (rows["a"] > 0).astype(int)), rows


def save_and_die_at_step(folder, fatal_step):
    """Save, and SIGKILL this process before its `fatal_step`-th step on the file system."""
    model, rows = trained()
    steps = 0

    def count(event, arguments):
        nonlocal steps
        if event not in FILE_SYSTEM_STEPS or str(folder.parent) not in str(arguments[0]):
            return
        steps += 1
        if steps == fatal_step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    save_artefact(folder, model, rows, RECORD)
    os._exit(0)


def save_until_killed(parent, saved):
    model, rows = trained()
    while True:
        save_artefact(parent / f"model-{saved.value}", model, rows, RECORD)
        saved.value += 1


def test_killed_before_any_step_it_leaves_all_or_nothing(tmp_path):
    outcomes = []
    model, rows = trained()
    for step in range(1, 60):
        parent = tmp_path / str(step)
        parent.mkdir()
        process = FORKS.Process(target=save_and_die_at_step, args=(parent / "model", step))
        process.start()
        process.join(60)
        visible = [path.name for path in parent.iterdir() if not path.name.startswith(".tmp-")]
        outcomes.append(bool(visible))
        if visible:
            assert visible == ["model"]
            assert np.allclose(
                load_artefact(parent / "model").model.predict_proba(rows),
                model.predict_proba(rows),
                atol=1e-6,
            )
        else:
            save_artefact(parent / "model", model, rows, RECORD)  # the dead are in nobody's way
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    else:
        pytest.fail("the save never came to its end")
    assert outcomes[0] is False
    assert outcomes[-1] is True
    assert outcomes == sorted(outcomes)
    assert len(outcomes) > 6


def test_killed_at_random_moments_every_visible_artefact_loads(tmp_path):
    rng = random.Random(10)
    saved = FORKS.Value("i", 0)
    for _ in range(6):
        writer = FORKS.Process(target=save_until_killed, args=(tmp_path, saved))
        before = saved.value
        writer.start()
        while saved.value == before:  # until it is at work
            assert writer.is_alive()
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))  # the moment of death is what is being varied
        writer.kill()
        writer.join()
        # Published, and killed before it was counted: the next writer takes the next name.
        if (tmp_path / f"model-{saved.value}").exists():
            saved.value += 1
    visible = [path for path in tmp_path.iterdir() if not path.name.startswith(".tmp-")]
    assert len(visible) == saved.value >= 6
    for folder in visible:
        assert load_artefact(folder).metadata.training == RECORD
