"""Attempts run with limits, and the process that asked lives on."""

import os
import threading
import time

import pytest

from companion.study import sandbox
from companion.study.sandbox import Limits, run_limited

SHORT = Limits(seconds=0.5, megabytes=256)
LONG = Limits(seconds=30, megabytes=256)


def test_the_result_comes_back():
    assert run_limited(lambda: {"a": [1, 2]}, LONG).value == {"a": [1, 2]}


def test_the_attempt_sees_what_cannot_be_pickled():
    lock = threading.Lock()
    assert run_limited(lambda: lock.acquire(timeout=1), LONG).value is True
    assert not lock.locked(), "the copy's lock was taken, not ours"


def test_an_endless_loop_ends_at_its_limit():
    def loop():
        while True:
            pass

    began = time.monotonic()
    assert run_limited(loop, SHORT).stopped == "stopped after its limit of 0.5 s"
    assert time.monotonic() - began < 20


def test_a_loop_that_swallows_every_exception_ends_too():
    def loop():
        while True:
            try:
                time.sleep(10)
            except BaseException:  # noqa: BLE001
                continue

    assert "limit of 0.5 s" in run_limited(loop, SHORT).stopped


def test_a_greedy_attempt_is_stopped_by_its_memory_limit():
    def greedy():
        kept = []
        while True:
            kept.append(bytearray(16 * 2**20))

    assert "more than 256 MB" in run_limited(greedy, LONG).stopped


def test_an_exception_comes_back_with_its_traceback():
    def broken():
        raise KeyError("amount")

    ran = run_limited(broken, LONG)
    assert ran.error == "KeyError: 'amount'"
    assert "LookupError" in ran.error_types
    assert "in broken" in ran.trace


def test_exiting_is_an_ending_like_any_other():
    def leaves():
        raise SystemExit

    assert run_limited(leaves, LONG).error == "SystemExit"


def test_a_crash_of_the_attempt_is_told():
    assert run_limited(os.abort, LONG).stopped == "ended by SIGABRT"
    assert run_limited(lambda: os._exit(3), LONG).stopped == "ended the process itself"


def test_what_it_printed_is_kept():
    assert run_limited(lambda: print("here"), LONG).printed == "here\n"


def test_a_result_that_cannot_be_pickled_is_an_error():
    assert "cannot be sent back" in run_limited(threading.Lock, LONG).error


def test_what_the_attempt_started_is_ended_with_it(tmp_path):
    mark = tmp_path / "pid"

    def starts_a_process():
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        mark.write_text(str(pid))

    began = time.monotonic()
    assert run_limited(starts_a_process, LONG).stopped == ""
    assert time.monotonic() - began < LONG.seconds / 2, "it was not waited for"
    orphan = int(mark.read_text())
    for _ in range(100):
        if not _alive(orphan):
            return
        time.sleep(0.02)
    pytest.fail("the attempt's own child outlived it")


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_interrupt_while_waiting_ends_the_attempt(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sandbox, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_limited(lambda: time.sleep(60), LONG)


def test_without_fork_it_runs_in_a_thread(monkeypatch):
    monkeypatch.delattr(os, "fork")
    stop = threading.Event()
    assert run_limited(lambda: 7, LONG).value == 7
    assert "limit of 0.05 s" in run_limited(lambda: stop.wait(30), Limits(seconds=0.05)).stopped
    stop.set()


def test_torch_that_has_trained_here_trains_in_the_attempt_too():
    torch = pytest.importorskip("torch")

    def train():
        layer = torch.nn.Linear(256, 256)
        layer(torch.randn(512, 256)).sum().backward()
        return float(layer.weight.grad.abs().sum())

    train()  # the parent has used its thread pools before the fork
    assert run_limited(train, LONG).value > 0
