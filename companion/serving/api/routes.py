"""The routes that are not hot, and the documentation of the one that is."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, FastAPI, Response
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp

from companion.serving.api.admission import retry_after
from companion.serving.api.explaining import Explaining
from companion.serving.api.hot import PATH
from companion.serving.batching import QueueFullError
from companion.serving.errors import ModelLoadError
from companion.serving.metrics import CONTENT_TYPE, ServiceMetrics
from companion.serving.problems import documented, problem_response
from companion.serving.schemas import (
    ExplanationOut,
    FeaturesIn,
    InvalidOut,
    ProblemOut,
    ScoreOut,
    ScoreV1Out,
    TransactionIn,
)
from companion.serving.scorer import Scorer
from companion.serving.tracing import current_request_id

KEY_SCHEME = "ApiKey"
_REFUSED = documented(ProblemOut, (415,))
_INVALID = documented(InvalidOut, (422,))


def hot_route(hot: ASGIApp) -> APIRoute:
    """`hot` as FastAPI's route for `POST /v2/predict`, in the document like any other."""

    async def predict(transaction: TransactionIn) -> ScoreOut:
        """The probability of fraud of one transaction, and what costs least in view of it."""
        raise NotImplementedError("this documents the route; the hot path answers it")

    route = APIRoute(
        PATH,
        predict,
        methods=["POST"],
        tags=["scores"],
        summary="Score one transaction",
        responses=_REFUSED | _INVALID | documented(ProblemOut, (503,)),
    )
    route.app = hot
    return route


def explain_router(explaining: Explaining) -> APIRouter:
    """`POST /v2/explain`."""
    router = APIRouter(tags=["scores"])

    @router.post(
        "/v2/explain",
        response_model=ExplanationOut,
        responses=_REFUSED | _INVALID | documented(ProblemOut, (503,)),
        summary="Score one transaction, with reasons",
    )
    async def explain(transaction: TransactionIn) -> Any:
        """Reasons in words and numbers, strongest first. Slower than a score by a hundred times."""
        try:
            return await explaining.explain(transaction.as_transaction(), current_request_id())
        except QueueFullError as error:
            return _unavailable("Too many explanations are under way.", error.retry_after)
        except ModelLoadError:
            return _unavailable("There is no model to explain.", 1.0)

    return router


def first_version(scorer: Scorer) -> APIRouter:
    """`POST /v1/predict`: the client makes the features, and bears what that costs."""
    router = APIRouter(prefix="/v1", tags=["first version"], deprecated=True)

    @router.post(
        "/predict",
        response_model=ScoreV1Out,
        responses=_REFUSED | _INVALID | documented(ProblemOut, (410, 503)),
        summary="Score twelve features",
    )
    async def predict(features: FeaturesIn) -> Any:  # type: ignore[valid-type]
        """Deprecated. Features that a client computes drift away from those of training."""
        try:
            model = scorer.holder.current()
        except ModelLoadError:
            return _unavailable("There is no model to answer with.", 1.0)
        row = np.array([features.row])  # type: ignore[attr-defined]
        return ScoreV1Out(fraud_probability=model.fraud(row), model_version=model.version)

    return router


def metrics_router(metrics: ServiceMetrics) -> APIRouter:
    """`GET /metrics`."""
    router = APIRouter(tags=["operations"])

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        summary="For Prometheus",
    )
    async def show() -> Response:
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})

    return router


def complete_document(app: FastAPI, open_prefixes: tuple[str, ...]) -> None:
    """Add to the OpenAPI document of `app` what FastAPI cannot know.

    That all paths but those under `open_prefixes` need a key, and what a problem looks like.
    """
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            components = document.setdefault("components", {})
            _add_schemas(components.setdefault("schemas", {}))
            scheme = APIKeyHeader(name="X-API-Key", scheme_name=KEY_SCHEME).model
            components["securitySchemes"] = {
                KEY_SCHEME: scheme.model_dump(mode="json", by_alias=True, exclude_none=True)
            }
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _add_refusals(operation, needs_key=not path.startswith(open_prefixes))
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_refusals(operation: dict[str, Any], *, needs_key: bool) -> None:
    """What is refused before a route is reached can happen on every one."""
    refusals = documented(ProblemOut, (401, 429) if needs_key else ())
    refusals |= documented(ProblemOut, (408, 413, 431, 500))
    for status, refusal in refusals.items():
        operation["responses"].setdefault(str(status), refusal)
    if needs_key:
        operation["security"] = [{KEY_SCHEME: []}]


def _add_schemas(schemas: dict[str, Any]) -> None:
    _, made = models_json_schema(
        [
            (ProblemOut, "serialization"),
            (InvalidOut, "serialization"),
            # Again, since FastAPI writes limits as doubles, and the largest id is none.
            (TransactionIn, "validation"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    schemas.update(made["$defs"])


def _unavailable(detail: str, wait: float) -> Response:
    name, value = retry_after(wait)
    headers = {name.decode(): value.decode()}
    return problem_response(503, "Service Unavailable", detail, headers=headers)
