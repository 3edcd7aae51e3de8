"""One forest behind five routes, for `benchmarks/batching.py`: without batching, and by each rule.

uvicorn --app-dir benchmarks _forest_server:app
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
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


class Row(BaseModel):
    row: list[float]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
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


app = FastAPI(lifespan=lifespan)


@app.post("/unbatched")
def unbatched(body: Row) -> float:
    return float(app.state.model.predict_proba(np.array([body.row], dtype=np.float32))[0, 1])


@app.post("/constant")
async def constant(body: Row) -> float:
    return 0.5


def _batched(name: str) -> Callable[[Row], Awaitable[float]]:
    async def predict(body: Row) -> float:
        return float((await app.state.batchers[name].predict(body.row))[1])

    return predict


for rule in RULES:
    app.post(f"/{rule.replace(' ', '-')}")(_batched(rule))


@app.get("/mean-batch")
async def mean_batch() -> dict[str, tuple[int, int]]:
    """Rows and batches by rule."""
    stats = {name: batcher.stats() for name, batcher in app.state.batchers.items()}
    return {name: (seen.rows, seen.batches) for name, seen in stats.items()}
