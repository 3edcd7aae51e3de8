"""The server stops in order: not ready first, then no more connections, then the end."""

import asyncio
import os
import signal
from types import SimpleNamespace

import pytest
import uvicorn

from companion.resilience.health import HealthRegistry
from companion.serving.errors import ModelReloadError
from companion.serving.holder import HolderStatus
from companion.serving.server import DrainingServer, config_for
from companion.serving.wire import HEADER_BYTES, GuardedProtocol, guarded


class App:
    """Starts and stops, and holds a model that `reload` is said to load."""

    def __init__(self, reload=lambda: HolderStatus("model")):
        self.health = HealthRegistry({}, critical=[])
        self.scorer = SimpleNamespace(holder=SimpleNamespace(reload=reload))

    async def __call__(self, scope, receive, send):
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})


def server(drain):
    app = App()
    config = config_for(app, host="127.0.0.1", port=0)
    return app, DrainingServer(config, app, drain)


async def stopping(drain, *signals):
    """Which stages the server is in after each signal, and in the end."""
    app, running = server(drain)
    running._loop = asyncio.get_running_loop()
    stages = []
    for number in signals:
        running.handle_exit(number, None)
        stages.append((app.health.liveness().draining, running.should_exit))
    await asyncio.sleep(0.05)
    return [*stages, (app.health.liveness().draining, running.should_exit)]


def test_sigterm_drains_before_it_stops():
    assert asyncio.run(stopping(0.01, signal.SIGTERM)) == [(True, False), (True, True)]


def test_without_a_time_to_drain_sigterm_stops_at_once():
    assert asyncio.run(stopping(0.0, signal.SIGTERM))[0] == (False, True)


def test_ctrl_c_stops_at_once():
    assert asyncio.run(stopping(60.0, signal.SIGINT))[0] == (False, True)


def test_a_second_signal_waits_no_longer():
    stages = asyncio.run(stopping(60.0, signal.SIGTERM, signal.SIGTERM))

    assert stages[:2] == [(True, False), (True, True)]


def test_the_server_is_guarded_and_believes_no_header_about_addresses():
    config = config_for("companion.serving.api:app_from_environment", host="127.0.0.1", port=0)

    assert config.http is GuardedProtocol
    assert config.factory
    assert not config.proxy_headers
    assert not config.server_header


def test_the_settings_of_the_wire_can_be_changed():
    protocol = guarded(seconds=1.0)

    assert issubclass(protocol, GuardedProtocol)
    assert (protocol.header_seconds, protocol.header_bytes) == (1.0, HEADER_BYTES)


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"seconds": float("inf")}, {"size": 0}])
def test_settings_that_let_nothing_through_are_refused(wrong):
    with pytest.raises(ValueError):
        guarded(**wrong)


def told_to_reload(app):
    """Run `app`, send SIGHUP once it runs, and stop it a moment later."""
    running = DrainingServer(uvicorn.Config(app, port=0, log_level="error"), app, 0.0)

    async def main():
        loop = asyncio.get_running_loop()
        serving = asyncio.create_task(running._serve())
        while not running.started:
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGHUP)
        loop.call_later(0.1, running.handle_exit, signal.SIGINT, None)
        await serving

    asyncio.run(main())


def test_sighup_loads_the_model_again_and_the_server_goes_on():
    loads = []

    told_to_reload(App(lambda: loads.append(True) or HolderStatus("model", version="2")))

    assert loads == [True]


def test_a_reload_that_fails_is_logged_and_the_server_goes_on(caplog):
    def fails():
        raise ModelReloadError("model", 1, OSError("gone"))

    told_to_reload(App(fails))

    assert "could not be reloaded" in caplog.text
