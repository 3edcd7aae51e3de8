"""A writer may be killed at any point: readers see what it had finished, and nothing else."""

import multiprocessing
import os
import random
import signal
import sys
import time
from datetime import UTC, datetime

import pandas as pd
import pytest

from companion.features import FeatureVersions

# A forkserver's children come from a process without threads, with the libraries already loaded.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["companion.features"])

FILE_SYSTEM_STEPS = {"open", "os.mkdir", "os.rename", "os.listdir", "os.scandir", "os.remove"}


def features(amount, rows=50):
    return pd.DataFrame({"amount": [float(amount)] * rows, "is_fraud": [False] * rows})


def save_and_die_at_step(root, fatal_step, action):
    """Do `action`, and SIGKILL this process before its `fatal_step`-th step on the file system."""
    store = FeatureVersions(root)
    frame = features(2)
    steps = 0

    def count(event, arguments):
        nonlocal steps
        if event in FILE_SYSTEM_STEPS:
            steps += 1
            if steps == fatal_step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    if action == "save":
        store.save(frame, version="v2")
    else:
        store.set_alias("production", "v1")
    os._exit(0)


def save_until_killed(root, saves):
    store = FeatureVersions(root)
    while True:
        meta = store.save(features(saves.value, rows=20_000))
        store.set_alias("production", meta.version)
        saves.value += 1


def save_times(root, amounts):
    store = FeatureVersions(root)
    for amount in amounts:
        store.save(features(amount))


def run_to_its_end(target, *arguments):
    process = FORKS.Process(target=target, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("action", ["save", "alias"])
def test_killed_before_any_step_a_writer_leaves_the_old_state_or_the_new_one(tmp_path, action):
    outcomes = []
    for step in range(1, 100):
        store = FeatureVersions(tmp_path / str(step))
        store.save(features(0), version="v0")
        store.save(features(1), version="v1")
        store.set_alias("production", "v0")
        exitcode = run_to_its_end(save_and_die_at_step, store.root, step, action)
        amounts = {
            meta.version: store.load(meta.version).frame["amount"][0] for meta in store.versions()
        }
        outcomes.append((amounts, store.aliases()["production"]))
        store.collect_garbage()
        assert not list(store.root.rglob(".tmp-*"))
        store.save(features(3), version="v3")  # a dead writer keeps no lock
        if exitcode == 0:
            break
        assert exitcode == -signal.SIGKILL
    else:
        pytest.fail("the writer never came to its end")
    old = {"v0": 0, "v1": 1}
    possible = [(old, "v0"), (old | {"v2": 2}, "v0") if action == "save" else (old, "v1")]
    assert all(outcome in possible for outcome in outcomes)
    assert outcomes[0] == possible[0]
    assert outcomes[-1] == possible[1]
    assert len(outcomes) > 5


def test_killed_at_random_moments_every_visible_version_loads(tmp_path):
    rng = random.Random(32)
    store = FeatureVersions(tmp_path / "features")
    saves = FORKS.Value("i", 0)
    for _ in range(15):
        writer = FORKS.Process(target=save_until_killed, args=(store.root, saves))
        before = saves.value
        writer.start()
        while saves.value == before:  # until it is at work
            assert writer.is_alive()
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))  # the moment of death is what is being varied
        writer.kill()
        writer.join()
        versions = store.versions()
        assert len(versions) >= saves.value
        assert store.load("@production").meta.rows == 20_000
    loaded = [store.load(meta.version).frame["amount"] for meta in store.versions()]
    assert all(amount.nunique() == 1 for amount in loaded)
    store.collect_garbage()
    assert not list(store.root.rglob(".tmp-*"))
    assert len(store.versions()) == len(versions)


def test_readers_never_fail_while_two_processes_write(tmp_path):
    store = FeatureVersions(tmp_path / "features")
    store.save(features(0))
    writers = [
        FORKS.Process(target=save_times, args=(store.root, range(start, start + 10)))
        for start in (100, 200)
    ]
    for writer in writers:
        writer.start()
    seen, last = 0, datetime(1970, 1, 1, tzinfo=UTC)
    while any(writer.is_alive() for writer in writers):
        loaded = store.load("latest")
        assert loaded.frame["amount"].nunique() == 1
        assert loaded.meta.created_at >= last
        last = loaded.meta.created_at
        seen += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen > 0
    assert len(store.versions()) == 21
