"""Q39 · Serving at scale with Triton: the exercise, its checks, and the mistakes they catch."""

import json

import numpy as np

from companion.serving.triton import InferenceError
from companion.study import Exercise, Stage

exercise = Exercise(
    "infer",
    hints={
        "start": (
            "Three steps: make the request, send it, make probabilities of the answer.",
            "The request is a dictionary: one input with name, shape, datatype and data. "
            "`post(path, request)` gives a status and a dictionary.",
            "Find the output by its name, reshape its data to its shape, apply a softmax to each "
            "row, return column 1. Then do it in parts of max_batch rows.",
        ),
        "type": (
            "What does your function hand back, and for how many rows?",
            "A one-dimensional float array, one probability a row, and an empty one for no rows.",
        ),
        "request": (
            "Compare your request with the protocol's, field by field.",
            "{'inputs': [{'name': 'input', 'shape': [rows, features], 'datatype': 'FP32', "
            "'data': [...]}]}, sent to /v2/models/MODEL/infer.",
            "`data` holds plain Python numbers, row after row: `rows.ravel().tolist()`.",
        ),
        "softmax": (
            "Can a probability be negative, or above one?",
            "The network ends in a linear layer: its outputs are logits. Softmax makes "
            "probabilities of a row of logits.",
            "`exp = np.exp(logits); p = exp / exp.sum(axis=1, keepdims=True)`; column 1 is fraud.",
        ),
        "stable": (
            "What is exp(1000)?",
            "Subtract each row's maximum before exp: the result is the same, and nothing "
            "overflows.",
        ),
        "by-name": (
            "Who promised that your output is the first one?",
            "Outputs have names. Look for the one called 'output'.",
            "`next(o for o in answer['outputs'] if o['name'] == 'output')`.",
        ),
        "chunks": (
            "max_batch_size is a limit: the server refuses a request with more rows.",
            "Send the rows in parts of at most max_batch, and join the answers in order.",
        ),
        "refused": (
            "The server said no. What does your caller get?",
            "A status of 400 or above is an error: raise InferenceError(model, status, reason) "
            "with the server's own words, which are in answer['error'].",
        ),
        "row-count": (
            "The answer has another number of rows than your request. Whose is whose?",
            "Compare shape[0] of the output with the rows that you sent, and raise InferenceError "
            "if they differ.",
        ),
        "no-memory": (
            "Call it twice. Where did the rows of the first call go?",
            "Keep what belongs to a call in its own variables: no default list, no global, nothing "
            "that one call leaves behind for the next.",
        ),
    },
)

FEATURES = 12
WEIGHTS = np.random.default_rng(39).normal(size=(FEATURES, 2)).astype(np.float32)


class Server:
    """A model server as the protocol describes it; its model is one linear layer."""

    def __init__(self, *, max_batch=256, scale=1.0, extra_outputs=False, drops=0, error=None):
        self.max_batch, self.scale, self.extra_outputs = max_batch, scale, extra_outputs
        self.drops, self.error = drops, error
        self.requests = []

    def __call__(self, path, request):
        json.dumps(request, allow_nan=False)  # what is no JSON never leaves the machine
        self.requests.append((path, request))
        if self.error:
            return self.error
        (tensor,) = request["inputs"]
        shape = list(tensor["shape"])
        if shape[0] > self.max_batch:
            return 400, {"error": f"batch {shape[0]} exceeds max_batch_size {self.max_batch}"}
        logits = self.logits(np.array(tensor["data"], dtype=np.float32).reshape(shape))
        logits = logits[: len(logits) - self.drops]
        output = {
            "name": "output",
            "datatype": "FP32",
            "shape": list(logits.shape),
            "data": logits.ravel().tolist(),
        }
        label = {"name": "label", "datatype": "INT64", "shape": [len(logits), 1]}
        label["data"] = [0] * len(logits)
        return 200, {"outputs": [label, output] if self.extra_outputs else [output]}

    def logits(self, rows):
        return self.scale * rows @ WEIGHTS


def rows_from(case, count):
    return case.rng.normal(size=(count, FEATURES)).astype(np.float32)


def probabilities(server, rows):
    logits = np.asarray(server.logits(rows), dtype=np.float64)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted[:, 1] / shifted.sum(axis=1)


def same(case, got, expected, given):
    is_same = np.shape(got) == expected.shape and np.allclose(got, expected, atol=1e-5)
    case.true(
        is_same,
        given=given,
        expected=f"{np.round(expected[:4], 3)}…",
        got=np.round(np.asarray(got, dtype=float)[:4], 3),
    )


@exercise.check(Stage.TYPE, hint="type")
def it_returns_one_number_a_row(attempt, case):
    """infer(post, rows) gives one float a row"""
    count = int(case.rng.integers(2, 9))
    got = attempt(Server(), rows_from(case, count))
    case.true(
        isinstance(got, np.ndarray) and np.issubdtype(got.dtype, np.floating),
        given=f"{count} rows",
        expected="an array of floats",
        got=type(got).__name__,
    )
    case.equal(given=f"{count} rows: the shape", expected=(count,), got=got.shape)


@exercise.check(Stage.TYPE, hint="type")
def no_rows_give_no_numbers(attempt, case):
    """no rows give an empty array"""
    none = attempt(Server(), np.empty((0, FEATURES), dtype=np.float32))
    case.equal(given="no rows: the shape", expected=(0,), got=np.shape(none))


@exercise.check(Stage.SHAPE, hint="request")
def the_request_follows_the_protocol(attempt, case):
    """the request has the fields of the protocol, and the rows in order"""
    server, rows = Server(), rows_from(case, 3)
    attempt(server, rows, model="fraud")
    path, request = server.requests[0]
    case.equal(given="where it was sent", expected="/v2/models/fraud/infer", got=path)
    (tensor,) = request["inputs"]
    seen = {key: tensor.get(key) for key in ("name", "shape", "datatype")}
    expected = {"name": "input", "shape": [3, FEATURES], "datatype": "FP32"}
    case.equal(given="3 rows of 12 features: the input tensor", expected=expected, got=seen)
    case.true(
        np.allclose(np.ravel(tensor["data"]), rows.ravel()),
        given="the input's data",
        expected="the rows, one after the other",
        got=tensor["data"][:3],
    )


@exercise.check(Stage.RANGE, hint="softmax")
def they_are_probabilities(attempt, case):
    """every number lies between 0 and 1"""
    got = attempt(Server(), rows_from(case, 200))
    case.true(
        ((got >= 0) & (got <= 1)).all(),
        given="200 rows",
        expected="0 to 1",
        got=f"{np.min(got):.2f} to {np.max(got):.2f}",
    )


@exercise.check(Stage.RANGE, hint="stable")
def large_logits_do_not_overflow(attempt, case):
    """logits of a thousand and more give 0 and 1, not nan"""
    server = Server(scale=1e4)
    rows = rows_from(case, 50)
    with np.errstate(all="ignore"):
        got = attempt(server, rows)
    largest = float(np.abs(server.logits(rows)).max())
    case.true(
        np.isfinite(got).all(),
        given=f"logits up to {largest:,.0f}",
        expected="finite numbers",
        got=f"{int((~np.isfinite(got)).sum())} of 50 are not",
    )


@exercise.check(Stage.VALUE, hint="softmax")
def they_are_the_models(attempt, case):
    """they are the softmax of the model's logits, column 1"""
    server, rows = Server(), rows_from(case, 40)
    same(case, attempt(server, rows), probabilities(server, rows), "40 rows")


@exercise.check(Stage.VALUE, hint="by-name")
def the_output_is_found_by_its_name(attempt, case):
    """the output is found by its name, wherever it stands"""
    server, rows = Server(extra_outputs=True), rows_from(case, 10)
    same(
        case,
        attempt(server, rows),
        probabilities(server, rows),
        "a model with the outputs 'label' and 'output'",
    )


@exercise.check(Stage.VALUE, hint="chunks")
def many_rows_go_in_parts(attempt, case):
    """more rows than max_batch go in several requests, and come back in order"""
    most = int(case.rng.integers(5, 9))
    server, rows = Server(max_batch=most), rows_from(case, 4 * most + 3)
    given = f"{len(rows)} rows, max_batch={most}"
    try:
        got = attempt(server, rows, max_batch=most)
    except InferenceError as error:
        case.true(False, given=given, expected="an answer", got=error)
    same(case, got, probabilities(server, rows), given)
    case.equal(given=f"{given}: requests", expected=5, got=len(server.requests))


@exercise.check(Stage.STRESS, hint="refused")
def a_refusal_is_raised(attempt, case):
    """a refusal of the server is raised with its status and its words"""
    status = int(case.rng.choice([400, 404, 500, 503]))
    server = Server(error=(status, {"error": "model is not ready"}))
    error = case.raises(
        InferenceError,
        lambda: attempt(server, rows_from(case, 2)),
        given=f"the server answers {status}",
    )
    case.equal(
        given=f"the server answers {status}: what the error says",
        expected=(status, "model is not ready"),
        got=(error.status, error.reason),
    )


@exercise.check(Stage.STRESS, hint="row-count")
def a_short_answer_is_raised(attempt, case):
    """an answer with fewer rows than were sent is an error, not a shorter result"""
    server = Server(drops=1)
    case.raises(
        InferenceError, lambda: attempt(server, rows_from(case, 5)), given="5 rows sent, 4 answered"
    )


@exercise.check(Stage.STRESS, hint="no-memory")
def calls_do_not_share_anything(attempt, case):
    """a call leaves nothing behind for the next one"""
    server = Server()
    first, second = rows_from(case, 6), rows_from(case, 4)
    attempt(server, first)
    same(case, attempt(server, second), probabilities(server, second), "a second call")


@exercise.part_of_solution
def softmax(logits):
    """Probabilities, rows × classes; the maximum is taken off first so that exp cannot overflow."""
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


@exercise.solution
def infer(post, rows, *, model="fraud", max_batch=256):
    rows = np.asarray(rows, dtype=np.float32)
    parts = [np.empty(0)]  # for no rows
    for start in range(0, len(rows), max_batch):
        part = rows[start : start + max_batch]
        tensor = {
            "name": "input",
            "shape": list(part.shape),
            "datatype": "FP32",
            "data": part.ravel().tolist(),
        }
        status, answer = post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
        if status >= 400:
            raise InferenceError(model, status, answer.get("error", "no reason given"))
        output = next(out for out in answer["outputs"] if out["name"] == "output")
        if output["shape"][0] != len(part):
            raise InferenceError(model, status, f"{len(part)} rows, answer {output['shape']}")
        logits = np.array(output["data"], dtype=np.float64).reshape(output["shape"])
        parts.append(softmax(logits)[:, 1])
    return np.concatenate(parts)


@exercise.another_way
def by_the_difference(post, rows, *, model="fraud", max_batch=256):
    """Two classes: the softmax of column 1 is the logistic function of a difference."""
    rows = np.asarray(rows, dtype=np.float32)
    fraud = np.zeros(len(rows))
    for start in range(0, len(rows), max_batch):
        part = rows[start : start + max_batch]
        count, width = part.shape
        request = {"name": "input", "shape": [count, width], "datatype": "FP32"}
        request["data"] = [float(value) for row in part for value in row]
        status, answer = post(f"/v2/models/{model}/infer", {"inputs": [request]})
        if status != 200:
            raise InferenceError(model, status, answer["error"])
        by_name = {output["name"]: output for output in answer["outputs"]}
        logits = np.array(by_name["output"]["data"], dtype=np.float64)
        if logits.size != 2 * count:
            raise InferenceError(model, status, "another number of rows came back")
        difference = np.clip(logits[1::2] - logits[0::2], -700, 700)
        fraud[start : start + count] = 1 / (1 + np.exp(-difference))
    return fraud


def _variant(
    post,
    rows,
    *,
    model="fraud",
    max_batch=256,
    to_probabilities=lambda logits: softmax(logits)[:, 1],
    pick=lambda outputs: next(out for out in outputs if out["name"] == "output"),
    kind="FP32",
    checks_status=True,
    checks_rows=True,
    in_parts=True,
    flat=True,
):
    """The solution with one thing changed, for the wrong attempts below."""
    rows = np.asarray(rows, dtype=np.float32)
    parts = [np.empty(0)]
    step = max_batch if in_parts else max(len(rows), 1)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        data = part.ravel() if flat else part.T.ravel()
        tensor = {"name": "input", "shape": list(part.shape), "datatype": kind}
        tensor["data"] = data.tolist()
        status, answer = post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
        if status >= 400 and checks_status:
            raise InferenceError(model, status, answer["error"])
        output = pick(answer["outputs"])
        if checks_rows and output["shape"][0] != len(part):
            raise InferenceError(model, status, "rows")
        logits = np.array(output["data"], dtype=np.float64).reshape(output["shape"])
        parts.append(to_probabilities(logits))
    return np.concatenate(parts)


@exercise.wrong("softmax")
def received(post, rows, *, model="fraud", max_batch=256):
    """The received answer: `predictions[:, 1]`, which are logits."""
    return _variant(
        post, rows, model=model, max_batch=max_batch, to_probabilities=lambda logits: logits[:, 1]
    )


@exercise.wrong("type")
def both_columns(post, rows, *, model="fraud", max_batch=256):
    """Hands back both columns."""
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32"}
    tensor["data"] = rows.ravel().tolist()
    _, answer = post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
    return softmax(np.array(answer["outputs"][0]["data"]).reshape(-1, 2))


@exercise.wrong("request")
def column_by_column(post, rows, *, model="fraud", max_batch=256):
    """Sends the matrix column after column."""
    return _variant(post, rows, model=model, max_batch=max_batch, flat=False)


@exercise.wrong("request")
def another_type(post, rows, *, model="fraud", max_batch=256):
    """Says FP64, which is not what the model's input is."""
    return _variant(post, rows, model=model, max_batch=max_batch, kind="FP64")


@exercise.wrong("softmax")
def scaled_to_its_own_range(post, rows, *, model="fraud", max_batch=256):
    """Squeezes column 1 into 0 to 1 by its smallest and largest value."""

    def squeeze(logits):
        low, high = logits[:, 1].min(), logits[:, 1].max()
        return (logits[:, 1] - low) / max(high - low, 1e-9)

    return _variant(post, rows, model=model, max_batch=max_batch, to_probabilities=squeeze)


@exercise.wrong("softmax")
def sigmoid_of_one_column(post, rows, *, model="fraud", max_batch=256):
    """The logistic function of column 1 alone: between 0 and 1, and not the model's."""
    return _variant(
        post,
        rows,
        model=model,
        max_batch=max_batch,
        to_probabilities=lambda logits: 1 / (1 + np.exp(-np.clip(logits[:, 1], -700, 700))),
    )


@exercise.wrong("stable")
def naive_softmax(post, rows, *, model="fraud", max_batch=256):
    """exp without taking off the maximum."""

    def naive(logits):
        exp = np.exp(logits)
        return exp[:, 1] / exp.sum(axis=1)

    return _variant(post, rows, model=model, max_batch=max_batch, to_probabilities=naive)


@exercise.wrong("by-name")
def first_output(post, rows, *, model="fraud", max_batch=256):
    """Takes the first output, whatever it is."""

    def to_probabilities(values):
        return (
            softmax(np.hstack([values, values]))[:, 1]
            if values.shape[1] == 1
            else softmax(values)[:, 1]
        )

    return _variant(
        post,
        rows,
        model=model,
        max_batch=max_batch,
        pick=lambda outputs: outputs[0],
        to_probabilities=to_probabilities,
    )


@exercise.wrong("chunks")
def all_at_once(post, rows, *, model="fraud", max_batch=256):
    """Sends all rows in one request, which the server refuses above its limit."""
    return _variant(post, rows, model=model, max_batch=max_batch, in_parts=False)


@exercise.wrong("refused")
def trusts_the_status(post, rows, *, model="fraud", max_batch=256):
    """Never looks at the status: a refusal becomes a KeyError somewhere else."""
    return _variant(post, rows, model=model, max_batch=max_batch, checks_status=False)


@exercise.wrong("row-count")
def takes_what_comes(post, rows, *, model="fraud", max_batch=256):
    """Never compares the number of rows: the results shift to other callers."""
    return _variant(post, rows, model=model, max_batch=max_batch, checks_rows=False)


@exercise.wrong("no-memory")
def remembers(post, rows, *, model="fraud", max_batch=256, seen=[]):  # noqa: B006 - the mistake
    """A default list collects the parts of all calls."""
    before = sum(len(part) for part in seen)
    seen.append(_variant(post, rows, model=model, max_batch=max_batch))
    return np.concatenate(seen) if before else seen[-1]
