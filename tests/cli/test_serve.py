"""`companion serve`: what it refuses, what it says, and that it answers."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from companion.cli import serve as command
from companion.cli.errors import CommandError
from companion.instruments import free_port
from companion.serving.keys import KeyRing
from companion.serving.preparing import prepare

MAIN = "import sys; from companion.cli import main; sys.argv[0] = 'companion'; main()"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("served") / "made", rows=1_000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"host": "0.0.0.0"}, "needs --keys"),
        ({"host": "192.168.1.5"}, "needs --keys"),
        ({"host": "example.org"}, "needs --keys"),
        ({"workers": 0}, "--workers"),
        ({"rate": 0.0}, "--rate"),
        ({"rate": float("inf")}, "--rate"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(arguments, words):
    with pytest.raises(CommandError, match=words):
        command.serve(**arguments)


@pytest.mark.parametrize("option", ["model", "history", "keys"])
def test_what_is_not_there_is_named(tmp_path, option):
    with pytest.raises(CommandError, match="nothing-there"):
        command.serve(**{option: tmp_path / "nothing-there"})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "127.8.8.8"])
def test_this_machine_needs_no_file_of_keys(host):
    assert command._is_here(host)


def test_a_key_is_added_to_a_file_and_shown_once(tmp_path, capsys):
    file = tmp_path / "keys.json"

    command.serve(new_key="a shop", keys=file)
    command.serve(new_key="another", keys=file)

    shown = re.findall(r"fsk_\S+", capsys.readouterr().out)
    ring = KeyRing.load(file)
    assert [ring.owner(key.encode()).name for key in shown] == ["a shop", "another"]


def test_a_new_key_needs_a_file(tmp_path):
    with pytest.raises(CommandError, match="--keys"):
        command.serve(new_key="a shop")


def test_a_file_that_holds_no_keys_is_not_written_over(tmp_path):
    file = tmp_path / "keys.json"
    file.write_text("my diary")

    with pytest.raises(CommandError, match="no list of keys"):
        command.serve(new_key="a shop", keys=file)
    assert file.read_text() == "my diary"


def test_what_is_said_can_be_pasted():
    worker = command._worker_command("sqlite:///j", command.Path("m"), None, "redis://r")
    said = command._welcome("http://127.0.0.1:8000", "fsk_x", worker, 2)

    body = re.search(r"-d '(.*)'", said)
    assert set(json.loads(body[1])) > {"amount", "time"}
    assert "X-API-Key: fsk_x" in said
    assert "companion worker --jobs sqlite:///j --model m --celery redis://r\n" in said
    program = shlex.split(re.search(r"Batches wait for: (.*)", said)[1])[0]
    assert Path(program).resolve() == Path(sys.executable).with_name("companion").resolve()
    assert "for itself" in said


def test_without_jobs_no_worker_is_asked_for():
    assert command._worker_command(None, command.Path("m"), None, None) is None
    assert "worker" not in command._welcome("http://127.0.0.1:8000", "fsk_x", None, 1)


@pytest.fixture
def ran(monkeypatch):
    """What `_run` would be called with; it is not."""
    calls = []
    monkeypatch.setattr(command, "_run", lambda *arguments: calls.append(arguments))
    return calls


def test_a_key_is_made_for_one_run_and_kept_nowhere(prepared, ran, capsys):
    command.serve(model=prepared / "model", port=free_port())

    settings, host, _, workers, _ = ran[0]
    assert (host, workers, settings["COMPANION_HISTORY_ENDS"]) == ("127.0.0.1", 1, "")
    assert "fsk_" in capsys.readouterr().out
    assert not command.Path(settings["COMPANION_KEYS"]).exists()


def test_without_a_model_the_prepared_one_is_served(prepared, ran, monkeypatch):
    monkeypatch.setattr("companion.serving.preparing.prepare", lambda folder, say: prepared)

    command.serve(port=free_port())

    settings = ran[0][0]
    assert settings["COMPANION_MODEL"] == str(prepared / "model")
    assert settings["COMPANION_HISTORY_ENDS"] == "now"


def test_with_a_file_of_keys_none_is_made_and_it_may_listen_wider(prepared, ran, tmp_path, capsys):
    file = tmp_path / "keys.json"
    command.serve(new_key="a shop", keys=file)
    capsys.readouterr()

    command.serve(model=prepared / "model", host="0.0.0.0", keys=file, port=free_port())

    assert ran[0][0]["COMPANION_KEYS"] == str(file)
    assert "$KEY" in capsys.readouterr().out


def test_a_port_that_is_taken_is_named(prepared, ran, monkeypatch, capsys):
    monkeypatch.setattr(command, "choose_port", lambda port, usual: (4711, "Port 8000 is taken."))

    command.serve(model=prepared / "model")

    assert "Port 8000 is taken." in capsys.readouterr().out
    assert ran[0][2] == 4711


def test_ctrl_c_ends_it_without_a_trace(prepared, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_run", interrupted)

    command.serve(model=prepared / "model", port=free_port())

    assert capsys.readouterr().err == "Stopped.\n"


def test_one_process_runs_the_application_itself(prepared, monkeypatch):
    served = []
    monkeypatch.setattr(
        "companion.serving.server.run", lambda app, **where: served.append((app.title, where))
    )
    monkeypatch.setattr("companion.serving.tracing.json_logging", lambda **level: None)

    command._run({"COMPANION_MODEL": str(prepared / "model")}, "127.0.0.1", 1, 1, 2.0)

    assert served == [("Fraud scores", {"host": "127.0.0.1", "port": 1, "drain": 2.0})]


def test_several_processes_read_the_environment(prepared, monkeypatch):
    supervised = []

    class Supervisor:
        def __init__(self, config, sockets):
            supervised.append(config.app)
            sockets[0].close()

        def run(self):
            supervised.append(os.environ["COMPANION_MODEL"])

    monkeypatch.setattr("uvicorn.supervisors.Multiprocess", Supervisor)
    monkeypatch.setattr("companion.serving.tracing.json_logging", lambda **level: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    model = str(prepared / "model")

    command._run({"COMPANION_MODEL": model}, "127.0.0.1", free_port(), 2, 0.0)

    assert supervised == [command.FACTORY, model]


@pytest.mark.parametrize("workers", [1, 2])
def test_settings_that_cannot_work_are_a_sentence(prepared, workers):
    settings = {"COMPANION_MODEL": str(prepared / "model"), "COMPANION_RATE": "x"}
    with pytest.raises(CommandError, match="COMPANION_RATE"):
        command._run(settings, "", 1, workers, 0.0)


def test_an_ipv6_address_is_written_as_in_a_url():
    assert command._in_url("::1") == "[::1]"


def test_the_service_answers_the_line_that_it_printed_and_stops_when_told(prepared, tmp_path):
    environment = {**os.environ, "COMPANION_DATA": str(tmp_path)}
    port = free_port()
    arguments = ["--model", str(prepared / "model"), "--history", str(prepared / "history.parquet")]
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "serve", *arguments, "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        try:
            said = ""
            while "Ctrl-C" not in said:
                said += server.stdout.readline()
            answer = answered(said, port)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(20) == -signal.SIGTERM
    assert answer["source"] == "model"
    assert answer["decision"] in ("approve", "review", "decline")


def answered(said, port):
    key = re.search(r"fsk_\S+", said)[0]
    body = re.search(r"-d '(.*)'", said)[1].encode()
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/predict", body, headers)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        try:
            with direct.open(request, timeout=5) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            time.sleep(0.05)
    raise AssertionError("it never answered")
