"""The kernel provisioner ``companion-warm``: forks kernels where that is possible.

Jupyter's seam for starting kernels elsewhere is the *provisioner* (Jupyter Enhancement Proposal
65), chosen by ``metadata.kernel_provisioner`` of a kernelspec. This one changes a single step,
starting the process; signals, waiting, ports and encryption stay with ``LocalProvisioner``.

Whatever cannot be forked is started as ever: no ``fork`` on this platform, ``COMPANION_WARM=0`` in
the environment, another interpreter or another launcher than ipykernel's own in the kernelspec,
``Popen`` options that a fork cannot honour, or a template that does not answer. The last says why
on stderr, once for each reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from companion.study.kernels import client
from companion.study.kernels.process import ForkedKernel

HONOURED = {
    "env",
    "cwd",
    "stdin",
    "stdout",
    "stderr",
    "independent",
    "extra_arguments",
    "kernel_id",
}
LAUNCHER = ["-m", "ipykernel_launcher"]

_said: set[str] = set()
_silent: list[client.TemplateSilentError] = []
"""Not empty once a template kept this process waiting: a second wait would be no shorter."""


class WarmProvisioner(LocalProvisioner):
    """A ``LocalProvisioner`` whose kernels are forks of a process with the imports done."""

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Prepare the launch; encrypt (CurveZMQ) where kernelspec and libzmq can.

        Jupyter's own default is not to, and ipykernel then warns in every kernel that anybody on
        this machine may listen. A caller that says ``transport_encryption`` has its way.
        """
        if hasattr(self.parent, "transport_encryption") and zmq.has("curve"):
            kwargs.setdefault("transport_encryption", "auto")
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel, by a fork where possible; returns its connection information."""
        process = await self._fork(cmd, kwargs) if forkable(cmd, kwargs) else None
        if process is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process: Any = process
        self.pid = self.pgid = process.pid
        self.cwd = kwargs.get("cwd") or Path.cwd()
        return self.connection_info

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel's process group, unless the kernel has ended."""
        if isinstance(self.process, ForkedKernel) and self.process.poll() is not None:
            return  # its number may belong to somebody else by now
        await super().send_signal(signum)

    async def _fork(self, cmd: list[str], kwargs: dict[str, Any]) -> ForkedKernel | None:
        # In a thread: the first request waits for the imports, and a server has other work.
        pending = asyncio.get_running_loop().run_in_executor(None, fork_kernel, cmd, kwargs)
        try:
            return await asyncio.shield(pending)
        except asyncio.CancelledError:
            pending.add_done_callback(_discard)
            raise
        except client.TemplateError as failed:
            if isinstance(failed, client.TemplateSilentError):
                _silent.append(failed)
            say_once(f"companion: warm kernels are off, starting an ordinary one: {failed}")
            return None


def forkable(cmd: list[str], kwargs: dict[str, Any]) -> bool:
    """Whether a fork can do what this command and these ``Popen`` options ask for."""
    environment = kwargs.get("env") or os.environ
    return (
        hasattr(os, "fork")
        and not _silent
        and environment.get("COMPANION_WARM", "1") != "0"
        and cmd[0] == sys.executable
        and cmd[1:3] == LAUNCHER
        and set(kwargs) <= HONOURED
        and all(_stream_is_plain(kwargs.get(name)) for name in ("stdin", "stdout", "stderr"))
        and Path(kwargs.get("cwd") or ".").is_dir()
    )


def fork_kernel(cmd: list[str], kwargs: dict[str, Any]) -> ForkedKernel:
    """Ask the template for the kernel that ``Popen(cmd, **kwargs)`` would have been.

    Raises ``client.TemplateError``.
    """
    environment = dict(kwargs.get("env") or os.environ)
    independent = bool(kwargs.get("independent"))
    if not independent:
        environment["JPY_PARENT_PID"] = str(os.getpid())
    with _streams(kwargs) as streams:
        return client.request(
            client.Request(
                arguments=[os.path.expanduser(argument) for argument in cmd[3:]],
                environment=environment,
                folder=Path(kwargs.get("cwd") or ".").resolve(),
                streams=streams,
                independent=independent,
            )
        )


def say_once(message: str) -> None:
    """Print a message on stderr the first time that this process has it to say."""
    if message not in _said:
        _said.add(message)
        print(message, file=sys.stderr)


def _stream_is_plain(stream: Any) -> bool:
    """A stream that can be handed over: inherited, discarded, or open already; no new pipe."""
    if isinstance(stream, int):
        return stream >= 0 or stream == subprocess.DEVNULL
    return stream is None or hasattr(stream, "fileno")


@contextlib.contextmanager
def _streams(kwargs: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
    """File descriptors for stdin, stdout and stderr as ``Popen`` would have made them.

    An unnamed stdin is empty rather than inherited: Jupyter closes it too.
    """
    with open(os.devnull, "r+b", buffering=0) as nothing:
        inherited = {"stdin": nothing.fileno(), "stdout": 1, "stderr": 2}
        found = []
        for name, own in inherited.items():
            stream = kwargs.get(name)
            if stream is None:
                found.append(own if _is_open(own) else nothing.fileno())
            elif stream == subprocess.DEVNULL:
                found.append(nothing.fileno())
            else:
                found.append(stream if isinstance(stream, int) else stream.fileno())
        yield found[0], found[1], found[2]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _discard(pending: asyncio.Future[ForkedKernel]) -> None:
    """End a kernel that nobody waits for any more."""
    if not pending.cancelled() and pending.exception() is None:
        pending.result().kill()
