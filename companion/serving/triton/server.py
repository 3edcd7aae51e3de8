"""A real Triton server for an experiment: there inside the `with` block, gone after it.

The server comes in the wheel *nvidia-pytriton*, which asks for older packages than ours and so
lives in a side environment (`companion side triton`). Three things stand between the wheel and a
server that runs, and are done here:

* the backend's folder lacks its *stub*, the program that holds the Python interpreter: the wheel
  keeps one per Python version elsewhere, so a folder with the right one is put together;
* the stub is linked to `libpython` by name and would take the system's, of another patch release
  than the standard library that it then finds; `LD_LIBRARY_PATH` names the right one first;
* the stub ignores `PYTHONPATH`; `TRITON_SITE` tells the model where its packages are.

It listens on the loopback interface, on free ports: its default for HTTP, 8000, is everybody's.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from companion.instruments.server import ServerNotReadyError, SubprocessServer, free_port

SIDE = Path(".side") / "triton"
_PORTS_TO_TRY = 3
# Where there is no GPU, the log complains of its driver first, whatever is the matter.
_ERROR_LINE = re.compile(r'^E\d{4} .*?\] (?!"?CudaDriverHelper)"?(.*?)"?$', re.MULTILINE)
_ASK_PYTHON = """
import json, sys, sysconfig
print(json.dumps({
    "site": sysconfig.get_path("purelib"),
    "libraries": sysconfig.get_config_var("LIBDIR"),
    "version": "%d.%d" % sys.version_info[:2],
}))
"""


class TritonMissingError(Exception):
    """There is no Triton here; the message has the command that makes its environment."""

    def __init__(self, looked_for: Path) -> None:
        super().__init__(f"there is no Triton in {looked_for}: run 'companion side triton'")
        self.looked_for = looked_for


class TritonStartError(Exception):
    """Triton did not start, or could not load a model; `reasons` are the errors in its log."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__("Triton did not start: " + "; ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True)
class TritonServer:
    """A server that answers over HTTP at `url`; `process` is for reading its log or killing it."""

    url: str
    process: SubprocessServer


@dataclass(frozen=True)
class TritonHome:
    """Where the side environment keeps what the server needs."""

    site: Path
    libraries: Path
    version: str

    @property
    def program(self) -> Path:
        return self._triton / "bin" / "tritonserver"

    @property
    def bundled(self) -> Path:
        """The shared libraries that the wheel brings along."""
        return self.site / "nvidia_pytriton.libs"

    def backend_files(self) -> list[Path]:
        """The Python backend and the stub of this Python."""
        stub = self._triton / "python_backend_stubs" / self.version / "triton_python_backend_stub"
        return [*(self._triton / "backends" / "python").iterdir(), stub]

    @property
    def _triton(self) -> Path:
        return self.site / "pytriton" / "tritonserver"


def find_triton(side: Path | None = None) -> TritonHome:
    """The Triton of the side environment `side` (default: of the checkout that holds this package).

    Raises:
        TritonMissingError: there is none.
    """
    folder = side or Path(__file__).parents[3] / SIDE
    python = folder / "bin" / "python"
    # The stamp is written last: without it the environment is half made.
    if not (folder / "set-up.json").is_file() or not python.exists():
        raise TritonMissingError(folder)
    said = subprocess.run(
        [python, "-c", _ASK_PYTHON], capture_output=True, text=True, check=True, timeout=30
    )
    paths = json.loads(said.stdout)
    home = TritonHome(Path(paths["site"]), Path(paths["libraries"]), paths["version"])
    if not home.program.is_file():
        raise TritonMissingError(folder)
    return home


@contextlib.contextmanager
def triton_server(
    repository: Path, *, side: Path | None = None, timeout: float = 60.0
) -> Iterator[TritonServer]:
    """Run Triton with all models of `repository`, on free ports of the loopback interface.

    `side` is the side environment's folder, `timeout` how many seconds the models may take to load.

    Raises:
        TritonMissingError: the side environment is not there.
        TritonStartError: it does not start, or a model does not load.
    """
    home = find_triton(side)
    with tempfile.TemporaryDirectory(prefix="triton-") as name:
        backends = Path(name)
        (backends / "python").mkdir()
        for file in home.backend_files():
            (backends / "python" / file.name).symlink_to(file)
        server = _started(home, repository, backends, timeout)
        try:
            yield server
        finally:
            server.process.terminate()


def _started(home: TritonHome, repository: Path, backends: Path, timeout: float) -> TritonServer:
    for _ in range(_PORTS_TO_TRY - 1):
        try:
            return _start(home, repository, backends, timeout)
        except TritonStartError as error:
            # Somebody may have taken a port before the server did; what else is wrong stays wrong.
            if "Address already in use" not in str(error):
                raise
    return _start(home, repository, backends, timeout)


def _start(home: TritonHome, repository: Path, backends: Path, timeout: float) -> TritonServer:
    port = free_port()
    command = [
        str(home.program),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--http-port={port}",
        "--http-address=127.0.0.1",
        "--allow-grpc=false",
        "--allow-metrics=false",
        "--disable-auto-complete-config",
    ]
    environment = {
        "LD_LIBRARY_PATH": f"{home.libraries}:{home.bundled}",
        "TRITON_SITE": str(home.site),
        "OMP_NUM_THREADS": "1",
    }
    process = SubprocessServer(
        command, f"http://127.0.0.1:{port}/v2/health/ready", env=environment, timeout=timeout
    )
    try:
        process.start()
    except ServerNotReadyError as error:
        reasons = tuple(dict.fromkeys(_ERROR_LINE.findall(process.log())))
        raise TritonStartError(reasons or (error.log_tail,)) from error
    return TritonServer(f"http://127.0.0.1:{port}", process)
