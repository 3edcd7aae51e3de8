"""Q11 · Request validation with FastAPI: the exercise, its checks, and the mistakes they catch."""

import asyncio
import json
import warnings
from typing import Annotated, Literal

import httpx
import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from companion.study import Exercise, Stage

exercise = Exercise(
    "build_app",
    hints={
        "start": (
            "Begin with a pydantic model of the body and a route that answers 200 for a good one.",
            "`app = FastAPI()`, `@app.post('/predict')`, `def predict(body: Transaction)`, and "
            "`return app` at the end.",
        ),
        "app": (
            "What should come back is the application itself.",
            "POST /predict with a good body has to give 200 and `fraud_probability`.",
        ),
        "plain-float": (
            "`score` may answer with a number of NumPy. What can FastAPI write as JSON?",
            "`float(…)` around what `score` gives.",
        ),
        "status": (
            "There is one status for whatever can be read and breaks a rule.",
            "422; a 400 is for what cannot be read at all.",
        ),
        "bounds": (
            "Look at both ends: one is allowed, the other is not.",
            "`Field(gt=0, le=1_000_000)`.",
        ),
        "not-a-number": (
            "Send NaN yourself and read the status. It is not your model that fails.",
            "FastAPI's refusal repeats the input, and NaN cannot be written as JSON. Forbidding "
            "NaN refuses it; the refusal is what breaks.",
            "`@app.exception_handler(RequestValidationError)`: answer 422 with the names of the "
            "fields only; and `allow_inf_nan=False`.",
        ),
        "converted": (
            '`"10"` is no number, and neither is `true`. Who turned it into one?',
            "Pydantic converts unless it is told not to: `ConfigDict(strict=True)`.",
        ),
        "currency": (
            "An unknown currency is a typing mistake, or worse. Is `eur` one that you know?",
            "`Literal['EUR', 'USD', 'GBP']`.",
        ),
        "extra": (
            "A misspelt field must not vanish.",
            "`ConfigDict(extra='forbid')`.",
        ),
        "echo": (
            "Read the body of your own refusal. Would you want a card number in it?",
            "`item['loc'][-1]` for each of `error.errors()` is the name of a field; nothing else "
            "has to go back.",
        ),
        "example": (
            "Look at `/openapi.json`, and at the warnings while your application is built.",
            "`Field(…, examples=[42.5])`: a list. `example=` is deprecated.",
        ),
        "our-fault": (
            "A division by zero inside `score` is not the client's mistake.",
            "Catch validation errors alone. Leave any other exception to become a 500.",
        ),
    },
)

PATH = "/predict"
GOOD = {"amount": 42.5, "currency": "EUR"}


class Score:
    """Gives `answer` and remembers what it was asked."""

    def __init__(self, answer=0.25):
        self.answer = answer
        self.asked = []

    def __call__(self, amount, currency):
        self.asked.append((amount, currency))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def post(app, body):
    """The reply of `app` to `body`: a dict, or JSON text as it stands."""
    content = body if isinstance(body, str) else json.dumps(body)

    async def send():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            headers = {"content-type": "application/json"}
            return await client.post(PATH, content=content, headers=headers)

    return asyncio.run(send())


def refuses(case, attempt, bodies):
    """Each of `bodies` (name → body) must be a 422 that never came to `score`."""
    score = Score()
    app = attempt(score)
    for name, body in bodies.items():
        status = post(app, body).status_code
        case.equal(given=name, expected=422, got=status)
        case.equal(given=name, expected="score was not called", got=called(score))


def called(score):
    return f"score was called with {score.asked[0]}" if score.asked else "score was not called"


@exercise.check(Stage.TYPE, hint="app")
def it_answers(attempt, case):
    """it returns an application that answers a good body with what score gives"""
    score = Score(round(float(case.rng.uniform()), 6))
    amount = round(float(case.rng.uniform(1, 1000)), 2)
    reply = post(attempt(score), GOOD | {"amount": amount})
    case.equal(given=f"amount {amount}", expected=200, got=reply.status_code)
    case.equal(
        given=f"amount {amount}", expected={"fraud_probability": score.answer}, got=reply.json()
    )
    case.equal(given="the call", expected=[(amount, "EUR")], got=score.asked)


@exercise.check(Stage.SHAPE, hint="plain-float")
def numpy_is_written(attempt, case):
    """a probability of NumPy is answered as a plain number"""
    for number in (np.float32(0.25), np.array(0.25)):
        reply = post(attempt(Score(number)), GOOD)
        case.equal(given=repr(number), expected=200, got=reply.status_code)
        case.equal(given=repr(number), expected={"fraud_probability": 0.25}, got=reply.json())


@exercise.check(Stage.SHAPE, hint="status")
def a_refusal_is_a_422(attempt, case):
    """a body that lacks a field is refused with 422"""
    refuses(case, attempt, {"no amount": {"currency": "EUR"}, "an empty body": {}})


@exercise.check(Stage.RANGE, hint="bounds")
def amounts_are_bounded(attempt, case):
    """amounts of 0, below, and above a million are refused; a million is taken"""
    amounts = (0, -0.0, -round(float(case.rng.uniform(1, 99)), 2), 1_000_000.01, 1e300)
    refuses(case, attempt, {f"amount {amount}": GOOD | {"amount": amount} for amount in amounts})
    for amount in (1_000_000, 0.01):
        status = post(attempt(Score()), GOOD | {"amount": amount}).status_code
        case.equal(given=f"amount {amount}", expected=200, got=status)


@exercise.check(Stage.VALUE, hint="not-a-number")
def numbers_are_finite(attempt, case):
    """NaN and infinity are a 422, not a 500"""
    texts = ("NaN", "Infinity", "-Infinity", "1e999")
    refuses(
        case, attempt, {f"amount {text}": json.dumps(GOOD).replace("42.5", text) for text in texts}
    )


@exercise.check(Stage.VALUE, hint="converted")
def nothing_is_converted(attempt, case):
    """a number as text, and true, are no numbers"""
    wrong = ("10", "1e3", True, [10.0])
    refuses(case, attempt, {f"amount {json.dumps(it)}": GOOD | {"amount": it} for it in wrong})


@exercise.check(Stage.VALUE, hint="currency")
def currencies_are_known(attempt, case):
    """a currency that is empty, unknown or in small letters is refused; the three are taken"""
    wrong = ("", "EURO", "eur", "EUR ")
    refuses(case, attempt, {f"currency {it!r}": GOOD | {"currency": it} for it in wrong})
    for known in ("EUR", "USD", "GBP"):
        status = post(attempt(Score()), GOOD | {"currency": known}).status_code
        case.equal(given=f"currency {known!r}", expected=200, got=status)


@exercise.check(Stage.VALUE, hint="extra")
def fields_are_known(attempt, case):
    """a field that nobody knows is refused, and so is one that lacks"""
    refuses(
        case,
        attempt,
        {"amonut beside amount": GOOD | {"amonut": 9.0}, "no currency": {"amount": 42.5}},
    )


@exercise.check(Stage.VALUE, hint="echo")
def nothing_comes_back(attempt, case):
    """a refusal names the fields, and repeats nothing of what was sent"""
    secret = "".join(map(str, case.rng.integers(0, 10, 16)))
    for name in GOOD:
        reply = post(attempt(Score()), GOOD | {name: secret})
        case.equal(given=f"a card number as {name}", expected=422, got=reply.status_code)
        case.true(
            secret not in reply.text,
            given=f"a card number as {name}",
            expected="a refusal without it",
            got="the card number",
        )
        case.equal(given=f"a card number as {name}", expected={"refused": [name]}, got=reply.json())


@exercise.check(Stage.VALUE, hint="example")
def the_schema_has_an_example(attempt, case):
    """the schema shows an example amount, and building it warns of nothing"""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        schemas = attempt(Score()).openapi()["components"]["schemas"]
    found = [
        schema["properties"]["amount"].get("examples") or schema.get("examples")
        for schema in schemas.values()
        if "amount" in schema.get("properties", {})
    ]
    case.true(bool(found) and all(found), given="openapi()", expected="examples", got=found)
    case.equal(
        given="warnings",
        expected=[],
        got=[str(it.message)[:80] for it in heard if "deprecated" in str(it.message)],
    )


@exercise.check(Stage.STRESS, hint="our-fault")
def a_fault_of_ours_is_a_500(attempt, case):
    """an exception inside score is a 500, whatever its type"""
    for error in (ZeroDivisionError("by zero"), ValueError("bad value"), KeyError("amount")):
        status = post(attempt(Score(error)), GOOD).status_code
        case.equal(given=f"score raises {type(error).__name__}", expected=500, got=status)


def names_of(error):
    return sorted({str(item["loc"][-1]) for item in error.errors()})


async def refuse(request, error):
    return JSONResponse({"refused": names_of(error)}, status_code=422)


@exercise.solution
def build_app(score):
    class Payment(BaseModel, strict=True, extra="forbid", allow_inf_nan=False):
        amount: Annotated[float, Field(gt=0, le=1_000_000, examples=[9.99])]
        currency: Literal["EUR", "USD", "GBP"]

    app = FastAPI()

    @app.exception_handler(RequestValidationError)
    async def refuse(request, error):
        names = {str(problem["loc"][-1]) for problem in error.errors()}
        return JSONResponse({"refused": sorted(names)}, status_code=422)

    @app.post("/predict")
    def predict(payment: Payment):
        return {"fraud_probability": float(score(payment.amount, payment.currency))}

    return app


@exercise.another_way
def body_by_hand(score):
    """Reads the body in a dependency and validates it there; only the schema is declared."""

    class RefusedError(Exception):
        pass

    class Transaction(BaseModel, strict=True, extra="forbid", allow_inf_nan=False):
        amount: Annotated[float, Field(gt=0, le=1e6)]
        currency: Literal["EUR", "USD", "GBP"]
        model_config = ConfigDict(json_schema_extra={"examples": [GOOD]})

    async def transaction_of(request: Request):
        try:
            return Transaction.model_validate_json(await request.body())
        except ValidationError as error:
            raise RefusedError(names_of(error)) from error

    async def refused(request, error):
        return JSONResponse({"refused": error.args[0]}, status_code=422)

    app = FastAPI(exception_handlers={RefusedError: refused})
    schema = Transaction.model_json_schema()
    content = {"application/json": {"schema": schema}}

    @app.post(PATH, openapi_extra={"requestBody": {"content": content, "required": True}})
    def predict(transaction: Annotated[Transaction, Depends(transaction_of)]):
        return {"fraud_probability": float(score(transaction.amount, transaction.currency))}

    plain = app.openapi

    def openapi():
        document = plain()
        document.setdefault("components", {}).setdefault("schemas", {})["Transaction"] = schema
        return document

    app.openapi = openapi
    return app


STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
CURRENCY = Literal["EUR", "USD", "GBP"]


def variant(score, *, config=STRICT, amount=None, currency=CURRENCY, handler=refuse, answer=float):
    """The solution with one thing changed."""
    amount = amount or Field(gt=0, le=1_000_000, examples=[42.5])
    body = create_model(
        "Transaction", __config__=config, amount=(float, amount), currency=(currency, ...)
    )
    app = FastAPI()
    if handler:
        app.exception_handler(RequestValidationError)(handler)

    @app.post(PATH)
    def predict(transaction: body):
        return {"fraud_probability": answer(score(transaction.amount, transaction.currency))}

    return app


@exercise.wrong("app")
def the_class_alone(score):
    """Answers with the class, as `predict` does, where a probability was asked for."""
    return variant(score, answer=lambda probability: int(probability > 0.5))


@exercise.wrong("plain-float")
def hands_numpy_on(score):
    """Answers with whatever the model gives."""
    return variant(score, answer=lambda probability: probability)


@exercise.wrong("status")
def a_bad_request(score):
    """Refuses with another status."""

    async def handler(request, error):
        return JSONResponse({"refused": names_of(error)}, status_code=400)

    return variant(score, handler=handler)


@exercise.wrong("bounds")
def zero_is_an_amount(score):
    """`ge` for `gt`."""
    return variant(score, amount=Field(ge=0, le=1_000_000, examples=[42.5]))


@exercise.wrong("not-a-number")
def as_received(score):
    """The received answer's own model: bounded, and nothing else."""
    with warnings.catch_warnings(action="ignore"):
        currency = Annotated[str, Field(example="grocery")]
        return variant(score, config=ConfigDict(), currency=currency, handler=None)


@exercise.wrong("not-a-number")
def refuses_and_repeats(score):
    """Forbids NaN, and leaves the refusal to FastAPI, which repeats it."""
    return variant(score, handler=None)


@exercise.wrong("converted")
def lax(score):
    """Finite and bounded, and still converting."""
    return variant(score, config=ConfigDict(extra="forbid", allow_inf_nan=False))


@exercise.wrong("currency")
def any_text(score):
    """Takes each text for a currency."""
    return variant(score, currency=str)


@exercise.wrong("extra")
def drops_what_it_does_not_know(score):
    """Strict about types, and silent about names."""
    return variant(score, config=ConfigDict(strict=True, allow_inf_nan=False))


@exercise.wrong("echo")
def repeats_the_input(score):
    """Avoids the 500 by writing the input as text."""

    async def handler(request, error):
        return JSONResponse({"refused": [str(item) for item in error.errors()]}, status_code=422)

    return variant(score, handler=handler)


@exercise.wrong("example")
def a_deprecated_example(score):
    """The example as pydantic 1 took it."""
    return variant(score, amount=Field(gt=0, le=1_000_000, example=42.5))


@exercise.wrong("our-fault")
def everything_is_a_422(score):
    """Calls any failure the client's."""

    def careful(amount, currency):
        try:
            return float(score(amount, currency))
        except Exception as error:
            raise HTTPException(422, "invalid transaction") from error

    return variant(careful)
