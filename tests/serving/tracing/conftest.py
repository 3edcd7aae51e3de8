"""Speaking to an ASGI application without a server."""

import asyncio

import httpx
import pytest


@pytest.fixture(scope="session")
def exchange():
    """Send requests (method, path, headers) to an application, all at once; the responses."""

    def exchange(app, *requests):
        async def run():
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await asyncio.gather(
                    *(client.request(method, path, headers=h) for method, path, h in requests)
                )

        return asyncio.run(run())

    return exchange


@pytest.fixture(scope="session")
def get(exchange):
    """One GET of `path` with `headers`; the response."""

    def get(app, path="/", headers=()):
        (response,) = exchange(app, ("GET", path, dict(headers)))
        return response

    return get
