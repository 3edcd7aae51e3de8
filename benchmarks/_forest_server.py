"""One forest behind five routes, for `benchmarks/batching.py`: without batching, and by each rule.

uvicorn --app-dir benchmarks _forest_server:app
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from threadpoolctl import threadpool_limits

from companion.features import feature_matrix
from companion.models.families import make_forest
from companion.serving.batching import MicroBatcher
from companion.transactions import simulate

RULES = {
    "adaptive": {"adaptive": True},
    "classical": {"adaptive": False},
    "no delay": {"max_delay": 0.0},
}

_row_of = msgspec.json.Decoder(list[float]).decode


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    X, y = feature_matrix(simulate(20_000, seed=10))
    with threadpool_limits(1):
        model = make_forest(seed=0, trees=100).fit(X.to_numpy(dtype=np.float32), y)
        async with AsyncExitStack() as stack:
            app.state.model = model
            app.state.batchers = {
                name: await stack.enter_async_context(
                    MicroBatcher(model.predict_proba, dtype=np.float32, **settings)
                )
                for name, settings in RULES.items()
            }
            yield


async def unbatched(request: Request) -> Response:
    """As FastAPI does with a `def` route: each request in a thread of the pool."""
    row = np.array([_row_of(await request.body())], dtype=np.float32)
    return _answer((await run_in_threadpool(app.state.model.predict_proba, row))[0])


async def constant(request: Request) -> Response:
    _row_of(await request.body())
    return Response(b"0.5")


async def mean_batch(request: Request) -> Response:
    """Rows and batches by rule."""
    stats = {name: batcher.stats() for name, batcher in app.state.batchers.items()}
    return JSONResponse({name: (seen.rows, seen.batches) for name, seen in stats.items()})


def _batched(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def predict(request: Request) -> Response:
        return _answer(await app.state.batchers[name].predict(_row_of(await request.body())))

    return predict


def _answer(probabilities: NDArray[np.float64]) -> Response:
    return Response(b"%f" % probabilities[1])


app = Starlette(
    routes=[
        Route("/unbatched", unbatched, methods=["POST"]),
        Route("/constant", constant, methods=["POST"]),
        *(Route(f"/{name.replace(' ', '-')}", _batched(name), methods=["POST"]) for name in RULES),
        Route("/mean-batch", mean_batch),
    ],
    lifespan=lifespan,
)
