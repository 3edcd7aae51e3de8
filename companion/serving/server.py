"""Run the application in this process: guarded at the wire, and told by signals what to do.

A process that is told to stop is still in the load balancer's list, for as long as that needs to
notice. So SIGTERM does two things, in this order (Kubernetes documentation, *Pod Lifecycle*, on
termination): readiness says no while everything goes on being answered, and after `drain` seconds
the listening socket is closed and what is under way is finished. Ctrl-C skips the first, and a
second signal skips the rest.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from types import FrameType

import uvicorn

from companion.serving.api import ScoringApp
from companion.serving.errors import ModelLoadError, ModelReloadError
from companion.serving.wire import GuardedProtocol

SECONDS_TO_FINISH = 10
"""How long requests under way may take after the socket is closed."""

BACKLOG = 2048


_LOG = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """uvicorn's server whose first SIGTERM drains `app` for `drain` seconds before it stops.

    SIGHUP loads the model again.
    """

    def __init__(self, config: uvicorn.Config, app: ScoringApp, drain: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_draining = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP"):  # not on Windows
            self._loop.add_signal_handler(
                signal.SIGHUP, self._loop.run_in_executor, None, self._reload
            )

    def _reload(self) -> None:
        try:
            status = self._app.scorer.holder.reload()
        except (ModelLoadError, ModelReloadError) as error:
            _LOG.error("%s", error)
        else:
            _LOG.warning("the model is now %s", status.version)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self._is_draining or not self._drain or self._loop is None:
            super().handle_exit(sig, frame)
            return
        self._is_draining = True
        self._app.health.drain()
        self._loop.call_soon_threadsafe(
            self._loop.call_later, self._drain, super().handle_exit, sig, frame
        )


def config_for(
    app: ScoringApp | str, *, host: str, port: int, workers: int = 1, quiet: bool = True
) -> uvicorn.Config:
    """uvicorn's settings for the service: `app` itself, or the import path of its factory."""
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        host=host,
        port=port,
        workers=workers,
        loop="auto",
        http=GuardedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning" if quiet else "info",
        server_header=False,
        proxy_headers=False,  # whose word is believed is decided by `TrustedProxies`
        backlog=BACKLOG,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )


def run(app: ScoringApp, *, host: str, port: int, drain: float = 0.0) -> None:
    """Serve `app` until a signal says stop; `drain` is seconds, see this module.

    Raises `SystemExit` where the address is taken or the application does not start.
    """
    DrainingServer(config_for(app, host=host, port=port), app, drain).run()
