"""The smallest HTTP service around a held model: one prediction, one question about readiness.

The model is loaded while the server starts (ASGI lifespan), not when the module is imported and
not for each request. A server whose model cannot be loaded starts all the same and says that it
is not ready, so that an orchestrator waits and a person can ask it why; every request tries
again.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, create_model

from companion.features import FEATURES
from companion.serving.errors import ModelLoadError
from companion.serving.holder import Model, ModelHolder

MODEL_PATH = "COMPANION_MODEL_PATH"
MODEL_SHA256 = "COMPANION_MODEL_SHA256"

_LOG = logging.getLogger(__name__)
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_FIELDS: dict[str, Any] = dict.fromkeys(FEATURES, (float, ...))

FeatureRow = create_model(
    "FeatureRow",
    __config__=_STRICT,
    __doc__="The features of one transaction: all of them, finite, and nothing else.",
    **_FIELDS,
)


class Score(BaseModel):
    """The answer: how probable it is that the transaction is fraud (0–1)."""

    fraud_probability: float


class Readiness(BaseModel):
    """Whether a model answers, and which."""

    ready: bool
    version: str | None
    generation: int


def create_app(holder: ModelHolder[Model]) -> FastAPI:
    """An application that answers from `holder`, loaded and warmed up while it starts.

    `POST /predict` takes a `FeatureRow` and gives a `Score`; 422 for anything but finite numbers
    under exactly the known names, 503 while there is no model. `GET /health/ready` is 200 or 503.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(_try_to_load, holder)
        yield

    app = FastAPI(title="Fraud score", lifespan=lifespan)
    app.exception_handler(RequestValidationError)(_refusal)

    # Not `async`: a prediction keeps a core busy, and would keep the event loop from all others.
    @app.post("/predict")
    def predict(row: FeatureRow) -> Score:  # type: ignore[valid-type]
        frame = pd.DataFrame([dict(row)], columns=list(FEATURES))
        try:
            probabilities = holder.predict_proba(frame)
        except ModelLoadError as error:
            raise HTTPException(503, "there is no model to answer with yet") from error
        return Score(fraud_probability=float(probabilities[0, 1]))

    @app.get("/health/ready")
    def ready(response: Response) -> Readiness:
        status = holder.status()
        response.status_code = 200 if status.ready else 503
        return Readiness(ready=status.ready, version=status.version, generation=status.generation)

    return app


def load_once_app() -> FastAPI:
    """The application for `uvicorn --factory companion.serving.app:load_once_app`.

    The environment names the file in `COMPANION_MODEL_PATH` and its checksum in
    `COMPANION_MODEL_SHA256`. The file is read with joblib, which runs code that the file holds: it
    must be one that you fitted and stored yourself, a moment ago, as the experiments do.

    Raises `ValueError` where one of the two is not set.
    """
    unset = [name for name in (MODEL_PATH, MODEL_SHA256) if not os.environ.get(name)]
    if unset:
        raise ValueError(f"set {' and '.join(unset)} in the environment")
    holder = ModelHolder.from_file(
        Path(os.environ[MODEL_PATH]),
        sha256=os.environ[MODEL_SHA256],
        parse=_parse_joblib,
        warm_up=pd.DataFrame(np.zeros((1, len(FEATURES))), columns=list(FEATURES)),
    )
    return create_app(holder)


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    # FastAPI's own handler repeats the input in its answer; for NaN that is no JSON, and the client
    # would get a 500. Besides, what was refused need not be sent around once more.
    assert isinstance(error, RequestValidationError)
    problems = [{key: item[key] for key in ("type", "loc", "msg")} for item in error.errors()]
    return JSONResponse({"detail": problems}, status_code=422)


def _parse_joblib(data: bytes) -> Model:
    model: Model = joblib.load(BytesIO(data))
    return model


def _try_to_load(holder: ModelHolder[Model]) -> None:
    try:
        holder.load()
    except ModelLoadError as error:
        _LOG.warning("starting without a model: %s", error)
