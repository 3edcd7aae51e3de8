"""What `benchmarks/scoring_api.py` measures against: an empty FastAPI route, and ASGI alone.

uvicorn --app-dir benchmarks _scoring_servers:fastapi
"""

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

fastapi = FastAPI()


@fastapi.get("/constant")
async def constant() -> dict[str, bool]:
    return {"ok": True}


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """Two messages and nothing else; lifespan is not spoken."""
    assert scope["type"] == "http"
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})
