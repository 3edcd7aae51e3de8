"""The command that runs the fraud-scoring service: `companion serve`.

Whoever starts it the first time gets a service that answers: a small model trained on simulated
transactions, a key, and a line to paste. What it will not do is to stand open: it listens on this
machine only, and wider only where somebody named the keys that are accepted.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from companion.cli.errors import CommandError
from companion.cli.servers import LOOPBACK, choose_port

USUAL_PORT = 8000
FACTORY = "companion.serving.api:app_from_environment"
EXAMPLE = {
    "transaction_id": 900_001,
    "customer_id": 17,
    "merchant_id": 4,
    "category": "electronics",
    "amount": 249.9,
    "distance_km": 12.5,
    "device_id": 17,
    "is_online": True,
}


def serve(
    model: Annotated[
        Path | None, typer.Option(help="Folder of a saved model; without, a small one is trained.")
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="Parquet of past transactions, for the features.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; wider than here needs --keys.")] = (
        LOOPBACK
    ),
    port: Annotated[int | None, typer.Option(help="8000, or a free one where that is taken.")] = (
        None
    ),
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys; without, one is made for this run.")
    ] = None,
    new_key: Annotated[
        str | None, typer.Option(help="Add a key for NAME to the file of --keys, show it, and end.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Requests a second that each key may send.")] = 1000.0,
    jobs: Annotated[
        str | None, typer.Option(help="Store of batch jobs: sqlite:///FILE or postgresql://…")
    ] = None,
    uploads: Annotated[
        Path | None, typer.Option(help="Folder of uploaded files (beside an SQLite store).")
    ] = None,
    celery: Annotated[
        str | None, typer.Option(help="redis://… of Celery workers, to be told of new jobs.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes. More than one: each counts its limits for itself.")
    ] = 1,
    drain: Annotated[
        float, typer.Option(help="Seconds from SIGTERM to the end during which all is answered.")
    ] = 0.0,
    access_log: Annotated[bool, typer.Option(help="A JSON line for each request.")] = False,
) -> None:
    """Serve fraud scores over HTTP: /v2/predict, /v2/explain, /docs.

    Ctrl-C stops it.
    """
    if new_key is not None:
        print(_added(new_key, keys))
        return
    _refuse_at_once(model, history, host, keys, workers, rate)
    chosen, remark = choose_port(port, USUAL_PORT) if _is_here(host) else (port or USUAL_PORT, "")
    if remark:
        print(remark)
    ready_made = model is None
    if model is None:
        folder = _prepared()
        model, history = folder / "model", history or folder / "history.parquet"
    with _keys(keys) as (key_file, key):
        settings = {
            "COMPANION_MODEL": str(model),
            "COMPANION_HISTORY": str(history or ""),
            "COMPANION_HISTORY_ENDS": "now" if ready_made else "",
            "COMPANION_KEYS": str(key_file),
            "COMPANION_RATE": str(rate),
            "COMPANION_JOBS_URL": jobs or "",
            "COMPANION_UPLOADS": str(uploads or ""),
            "COMPANION_CELERY_URL": celery or "",
            "COMPANION_ACCESS_LOG": "1" if access_log else "",
        }
        address = f"http://{_in_url(host)}:{chosen}"
        print(
            _welcome(address, key, _worker_command(jobs, model, uploads, celery), workers),
            flush=True,
        )
        try:
            _run(settings, host, chosen, workers, drain)
        except KeyboardInterrupt:
            sys.stderr.write("Stopped.\n")


def _run(settings: Mapping[str, str], host: str, port: int, workers: int, drain: float) -> None:
    from companion.serving.api import create_app, service_of
    from companion.serving.api.environment import SettingError, Settings
    from companion.serving.keys import ApiKeyError
    from companion.serving.server import run
    from companion.serving.tracing import json_logging

    try:
        known = Settings.of({**os.environ, **settings})
        if workers > 1:
            os.environ.update(settings)
            _supervise(host, port, workers)
            return
        app = create_app(service_of(known))
    except (SettingError, ApiKeyError, OSError) as error:
        raise CommandError(str(error)) from error
    json_logging(level="WARNING")
    run(app, host=host, port=port, drain=drain)


def _supervise(host: str, port: int, workers: int) -> None:
    from uvicorn.supervisors import Multiprocess

    from companion.serving.server import config_for
    from companion.serving.tracing import json_logging

    config = config_for(FACTORY, host=host, port=port, workers=workers)
    json_logging(level="WARNING")
    Multiprocess(config, sockets=[config.bind_socket()]).run()


def _refuse_at_once(
    model: Path | None,
    history: Path | None,
    host: str,
    keys: Path | None,
    workers: int,
    rate: float,
) -> None:
    if not _is_here(host) and keys is None:
        raise CommandError(
            f"--host {host} can be reached by others, so it needs --keys FILE: make one with "
            "companion serve --keys FILE --new-key NAME."
        )
    if keys is not None and not keys.is_file():
        raise CommandError(
            f"There is no file {keys}: make it with companion serve --keys {keys} --new-key NAME."
        )
    if model is not None and not model.is_dir():
        raise CommandError(f"There is no model in {model}: it is a folder that save_artefact made.")
    if history is not None and not history.is_file():
        raise CommandError(f"There is no file {history}.")
    if workers < 1:
        raise CommandError(f"--workers is 1 or more; got {workers}.")
    if not 0 < rate < float("inf"):
        raise CommandError(f"--rate is a number above 0; got {rate:g}.")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _prepared() -> Path:
    import platformdirs

    from companion.serving.preparing import prepare

    chosen = os.environ.get("COMPANION_DATA")
    data = Path(chosen) if chosen else platformdirs.user_data_path("companion-workbook")
    return prepare(data / "serving-1", say=lambda text: print(text, flush=True))


@contextlib.contextmanager
def _keys(given: Path | None) -> Iterator[tuple[Path, str | None]]:
    """The file of keys, and the key itself where it was made for this run."""
    if given is not None:
        yield given, None
        return
    from companion.serving.keys import KeyRing, generate_key

    with tempfile.TemporaryDirectory(prefix="companion-") as private:
        key, record = generate_key("this run")
        file = Path(private, "keys.json")
        KeyRing([record]).save(file)
        yield file, key


def _added(name: str, file: Path | None) -> str:
    if file is None:
        raise CommandError("--new-key needs --keys FILE to add it to.")
    from companion.serving.keys import ApiKeyError, KeyRing, generate_key

    try:
        ring = KeyRing.load(file) if file.exists() else KeyRing([])
        key, record = generate_key(name)
        KeyRing([*ring, record]).save(file)
    except (ApiKeyError, OSError) as error:
        raise CommandError(str(error)) from error
    return f"{key}\n\nThis is shown once: {file} keeps only what recognises it."


def _worker_command(
    jobs: str | None, model: Path, uploads: Path | None, celery: str | None
) -> str | None:
    """What has to run beside the service so that batches are scored."""
    if jobs is None:
        return None
    options = {"--jobs": jobs, "--model": model, "--uploads": uploads, "--celery": celery}
    said = [word for name, value in options.items() if value for word in (name, str(value))]
    return shlex.join([_program(), "worker", *said])


def _program() -> str:
    """How to call `companion` from the current folder."""
    program = Path(sys.executable).with_name("companion")
    here = Path.cwd()
    return str(program.relative_to(here) if program.is_relative_to(here) else program)


def _welcome(address: str, key: str | None, worker: str | None, workers: int) -> str:
    shown = key or "$KEY"
    moment = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    example = json.dumps({**EXAMPLE, "time": moment})
    lines = [
        f"Fraud scores at {address} (documentation: {address}/docs)",
        "",
        *([f"The key of this run: {key}", ""] if key else []),
        f"curl -s {address}/v2/predict -H 'X-API-Key: {shown}' \\",
        f"  -H 'Content-Type: application/json' -d '{example}'",
        "",
    ]
    if worker:
        lines += [f"Batches wait for: {worker}", ""]
    if workers > 1:
        lines += [
            "Each process counts limits and requests for itself. Share limits with",
            "COMPANION_LIMITS_URL=redis://…",
            "",
        ]
    return "\n".join([*lines, "Ctrl-C stops it."])
