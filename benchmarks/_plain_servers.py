"""Two plain FastAPI applications for `benchmarks/serving_frameworks.py`.

    uvicorn --factory --app-dir benchmarks _plain_servers:bare

`bare` answers a constant and has no model: all that FastAPI costs by itself. `received` is the
pattern that people memorise: a forest from a pickle, asked in a `def` route, checked by pydantic.
"""

import os

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel


class Row(BaseModel):
    features: list[float]


def bare() -> FastAPI:
    app = FastAPI()

    @app.get("/score")
    async def score() -> dict[str, float]:
        return {"fraud_probability": 0.5}

    return app


def received() -> FastAPI:
    app = FastAPI()
    forest = joblib.load(os.environ["SCORING_FOREST"])  # made by the benchmark itself

    @app.post("/score")
    def score(row: Row) -> dict[str, float]:
        rows = np.array([row.features], dtype=np.float32)
        return {"fraud_probability": float(forest.predict_proba(rows)[0, 1])}

    return app
