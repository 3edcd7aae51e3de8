"""The template and how it is found: folder, start, idle end, replacement, the wire."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from companion.study.kernels import client
from companion.study.kernels.process import ForkedKernel
from companion.study.kernels.warm_template import libraries, wire

LIMIT_S = 60.0


def wait_until(true: Callable[[], object], limit_s: float = 30.0) -> None:
    """Wait for another process to get somewhere."""
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def runtime(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = short_folder
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("COMPANION_WARM_LIBRARIES", "json")
    monkeypatch.setenv("COMPANION_WARM_IDLE", "30")
    yield folder / "companion"
    for pid in templates(folder / "companion"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def templates(folder: Path) -> list[int]:
    """Process ids of the templates that got ready, from their logs."""
    logs = "\n".join(path.read_text() for path in sorted(folder.glob("*.log")))
    return [int(pid) for pid in re.findall(r"^(\d+) ready", logs, re.MULTILINE)]


@contextlib.contextmanager
def requested(*arguments: str, **environment: str) -> Iterator[ForkedKernel]:
    """A kernel with nobody to talk to; by default one that waits for a connection."""
    with open(os.devnull, "r+b") as nothing:
        wanted = client.Request(
            arguments=arguments or ("--IPKernelApp.connection_file=none.json",),
            environment=dict(os.environ) | environment,
            folder=Path(os.environ["XDG_RUNTIME_DIR"]),
            streams=(nothing.fileno(), nothing.fileno(), nothing.fileno()),
        )
        kernel = client.request(wanted, limit_s=LIMIT_S)
    try:
        yield kernel
    finally:
        kernel.kill()
        kernel.wait(LIMIT_S)


def test_requests_that_come_together_start_one_template(runtime: Path) -> None:
    def start(_: int) -> int:
        with requested() as kernel:
            return psutil.Process(kernel.pid).ppid()

    with ThreadPoolExecutor(4) as pool:
        parents = set(pool.map(start, range(4)))
    assert len(parents) == 1
    assert len(list(runtime.glob("*.sock"))) == 1


def test_another_value_of_a_variable_read_at_import_has_another_template(runtime: Path) -> None:
    with requested(OMP_NUM_THREADS="1") as one, requested(OMP_NUM_THREADS="2") as two:
        assert psutil.Process(one.pid).ppid() != psutil.Process(two.pid).ppid()


def test_another_value_of_any_other_variable_shares_the_template(runtime: Path) -> None:
    with requested(COLOUR="red") as one, requested(COLOUR="green") as two:
        assert psutil.Process(one.pid).ppid() == psutil.Process(two.pid).ppid()


def test_two_checkouts_and_two_environments_do_not_meet(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = client.address({})
    with monkeypatch.context() as patch:
        patch.setattr(client, "__file__", "/elsewhere/companion/study/kernels/client.py")
        checkout = client.address({})
    with monkeypatch.context() as patch:
        patch.setattr(sys, "prefix", "/elsewhere/.venv")
        environment = client.address({})
    with monkeypatch.context() as patch:
        patch.setattr(client, "_installed", lambda: ["torch-99.dist-info"])
        packages = client.address({})
    assert len({here, checkout, environment, packages}) == 4


def test_a_template_nobody_uses_ends_and_takes_its_socket_along(runtime: Path) -> None:
    with requested(COMPANION_WARM_IDLE="0.3"):
        (pid,) = templates(runtime)
        time.sleep(1.0)  # longer than the idle time: a living kernel keeps its template
        assert not gone(pid)
    wait_until(lambda: gone(pid))
    assert not list(runtime.glob("*.sock"))


def test_a_template_whose_socket_is_gone_ends(runtime: Path) -> None:
    with requested():
        (pid,) = templates(runtime)
        (address,) = runtime.glob("*.sock")
        address.unlink()
    wait_until(lambda: gone(pid))


def test_the_socket_of_a_killed_template_is_replaced(runtime: Path) -> None:
    with requested():
        (first,) = templates(runtime)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: gone(first))
    with requested() as kernel:
        assert psutil.Process(kernel.pid).ppid() != first


def test_an_outdated_template_is_replaced_by_who_asks_it(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A listener that accepts and hangs up, as a template does whose environment was replaced.
    place = client.address(os.environ)
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(place.socket))
        old.listen()

        def hang_up() -> None:
            old.accept()[0].close()

        outdated = threading.Thread(target=hang_up, daemon=True)
        outdated.start()
        with requested() as kernel:
            assert kernel.poll() is None
        outdated.join(LIMIT_S)


def test_a_template_that_says_why_it_is_unfit_is_believed(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True, name='pool').start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COMPANION_WARM_LIBRARIES", "threaded")
    with pytest.raises(client.TemplateError, match="started threads: MainThread, pool"):  # noqa: SIM117
        with requested():
            pass


def test_a_library_that_breaks_at_import_is_left_to_the_notebook(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("raise OSError('no such driver')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COMPANION_WARM_LIBRARIES", "not_installed_anywhere,broken")
    with requested():
        (log,) = runtime.glob("*.log")
        assert "not preloaded: broken: OSError: no such driver" in log.read_text()


def test_a_template_that_ends_at_once_is_an_error_that_names_its_log(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPANION_WARM_IDLE", "soon")
    with pytest.raises(client.TemplateError, match=r"ended.*\.log"), requested():
        pass
    (log,) = runtime.glob("*.log")
    assert "could not convert string to float: 'soon'" in log.read_text()


def test_an_interpreter_that_cannot_run_the_template_is_an_error(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(client, "PROGRAM", tmp_path / "missing")
        patch.setattr(client, "address", lambda _: client.Address(runtime / "x.sock"))
        runtime.mkdir(mode=0o700)
        with pytest.raises(client.TemplateError, match="could not be started"), requested():
            pass


def test_a_kernel_that_fails_before_it_can_answer_is_an_error(
    runtime: Path, tmp_path: Path
) -> None:
    with open(os.devnull, "r+b") as nothing:
        wanted = client.Request(
            ["-f", "x.json"], dict(os.environ), tmp_path / "missing", (nothing.fileno(),) * 3
        )
        with pytest.raises(client.TemplateError, match="ended at once with status 1"):
            client.request(wanted, limit_s=LIMIT_S)


def test_a_template_that_hangs_is_given_up_after_the_limit(runtime: Path) -> None:
    with requested():
        (pid,) = templates(runtime)
        os.kill(pid, signal.SIGSTOP)
        try:
            with open(os.devnull, "r+b") as nothing:
                wanted = client.Request([], dict(os.environ), Path("/"), (nothing.fileno(),) * 3)
                with pytest.raises(client.TemplateSilentError, match=r"no answer within 0\.3 s"):
                    client.request(wanted, limit_s=0.3)
        finally:
            os.kill(pid, signal.SIGCONT)


def test_nonsense_on_the_socket_harms_nobody(runtime: Path) -> None:
    with requested():
        (address,) = runtime.glob("*.sock")
        for nonsense in (b"", b"\0\0\0\4{}{}", b"\0\0\0\2{}"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(address))
                connection.sendall(nonsense)
        with requested() as kernel:
            assert kernel.poll() is None
    assert len(templates(runtime)) == 1


def test_waiting_for_a_kernel_has_a_limit(runtime: Path) -> None:
    with requested() as kernel:
        with pytest.raises(client.subprocess.TimeoutExpired):
            kernel.wait(0.05)
        assert "running" in repr(kernel)
        kernel.terminate()
        assert kernel.wait(LIMIT_S) == -signal.SIGTERM
        kernel.send_signal(signal.SIGKILL)  # nobody is there any more: nothing happens


# ------------------------------------------------------------------------------------ the folder


def test_the_folder_for_sockets_is_made_private(runtime: Path) -> None:
    assert stat.S_IMODE(client.private_folder().stat().st_mode) == 0o700


def test_a_folder_open_to_others_is_refused(runtime: Path) -> None:
    runtime.mkdir()
    runtime.chmod(0o755)
    with pytest.raises(client.TemplateError, match="open to others"):
        client.private_folder()


def test_a_folder_of_another_user_is_refused(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.private_folder()
    status = runtime.stat()
    monkeypatch.setattr(os, "geteuid", lambda: status.st_uid + 1)
    with pytest.raises(PermissionError, match="belongs to user"):
        client._require_private(status, runtime)
    with pytest.raises(PermissionError, match="belongs to user"):
        client._require_unswappable(
            os.stat_result((0o40700, 0, 0, 1, 4242, 0, 0, 0, 0, 0)), runtime
        )


def test_a_link_or_a_file_in_place_of_the_folder_is_refused(runtime: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    runtime.symlink_to(target)
    with pytest.raises(client.TemplateError, match="not a folder"):
        client.private_folder()


def test_a_folder_that_others_could_swap_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setattr(
        client.platformdirs, "user_runtime_path", lambda _: shared / "run" / "companion"
    )
    with pytest.raises(client.TemplateError, match="can be written to by others"):
        client.private_folder()


# ------------------------------------------------------------------------------------ in process


def test_a_message_arrives_whole_with_its_descriptors(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    message = {"environment": {"LONG": "x" * 300_000, "ODD": "\udcff"}}
    with ours, theirs, (tmp_path / "out").open("w+b") as out:
        sender = threading.Thread(target=wire.send, args=(ours, message, (out.fileno(),)))
        sender.start()
        received, (descriptor,) = wire.receive(theirs, streams=1)
        sender.join()
        os.write(descriptor, b"through")
        os.close(descriptor)
        assert received == message
        assert (tmp_path / "out").read_bytes() == b"through"


def test_a_message_cut_short_is_an_end_of_file() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(b"\0\0\0\5{")
        ours.close()
        with pytest.raises(EOFError, match="within a message"):
            wire.receive(theirs)


def test_a_stand_in_follows_its_target() -> None:
    with libraries.standing_in() as (stdout, _):
        assert sys.stdout is stdout
    assert sys.stdout is not stdout
    assert stdout.fileno == stdout.target.fileno


def test_everything_named_for_preloading_is_a_library_and_not_ours() -> None:
    assert not [name for name in libraries.PRELOADED if name.startswith("companion")]


def test_preloading_reports_what_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaks_here.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    failed = libraries.preload(["json", "breaks_here", "not_installed_anywhere"])
    assert failed == {"breaks_here": "ZeroDivisionError: division by zero"}
