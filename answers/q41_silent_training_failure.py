"""Q41 · Training fails silently: the exercise, its checks, and the mistakes they catch."""

import copy

import torch
from torch import nn

from companion.study import Exercise, Stage

exercise = Exercise(
    "diagnose",
    hints={
        "start": (
            "Call the model on x and look at what came out: that is all the evidence there is.",
            "Ask in this order: is everything finite, are the rows normalised, is everything "
            "between 0 and 1? What is left are scores without limits.",
            "Then ask what the criterion takes, and return one of the five words.",
        ),
        "words": (
            "The answer is one of five words, as a string.",
            '"ok", "nan", "probabilities", "bounded" or "logits".',
        ),
        "by-row": (
            "Try the faulty net on a batch of 32. What is the total of 32 rows of probabilities?",
            "Sum along the last axis: one sum for each row, and all of them have to be 1.",
            "torch.allclose(out.sum(dim=-1), torch.ones(len(out)))",
        ),
        "tautology": (
            "Which tensor does NOT sum to one after a softmax?",
            "Look at what forward returned, without applying anything to it first.",
        ),
        "range": (
            "Rows can sum to one and still be scores: (3, -2) does.",
            "Probabilities sum to one AND lie between 0 and 1. Test both.",
        ),
        "log-probabilities": (
            "exp() of these scores sums to one, row by row. Which loss takes that?",
            "CrossEntropyLoss leaves log-probabilities as they are, and NLLLoss asks for them: "
            '"ok" in both cases.',
        ),
        "criterion": (
            "The same output is right for one loss and wrong for another. Did you look at which "
            "one was given?",
            "isinstance(criterion, nn.NLLLoss): it takes log-probabilities, so raw scores are "
            '"logits" there, and "ok" for CrossEntropyLoss.',
        ),
        "relu": (
            "Nothing below zero, and no probability either. What else has no negative values?",
            "A ReLU behind the last layer. To be bounded, the values must not exceed 1.",
        ),
        "sigmoid": (
            "Two columns, each from 0 to 1, that do not sum to one. Which activation does that?",
            'A sigmoid for each column: "bounded".',
        ),
        "finite": (
            "A comparison with nan is false, so nan walks through every test that asks "
            '"is it outside?".',
            "One missing value spoils the whole training, wherever it is: look at every row.",
            'Ask first: torch.isfinite(out).all(), else "nan".',
        ),
        "leave-as-found": (
            "Compare the model before and after: its mode, its buffers, its gradients.",
            "In training mode a batch norm counts your rows in, refuses a batch of one, and "
            "dropout makes the answer a matter of luck. Diagnose in evaluation mode, then put the "
            "mode back with model.train(was_training), in a finally.",
        ),
    },
)

WORDS = ("ok", "nan", "probabilities", "bounded", "logits")
CROSS, NLL = nn.CrossEntropyLoss(), nn.NLLLoss()


class Behind(nn.Module):
    """A linear layer, and whatever `last` makes of its two columns."""

    def __init__(self, last, width=4):
        super().__init__()
        self.linear = nn.Linear(width, 2)
        self.last = last

    def forward(self, x):
        return self.last(self.linear(x))


LASTS = {
    "raw scores": lambda z: z,
    "log_softmax": lambda z: z.log_softmax(-1),
    "softmax": lambda z: z.softmax(-1),
    "sigmoid": lambda z: z.sigmoid(),
    "ReLU": lambda z: z.relu(),
    "scores that sum to one": lambda z: torch.stack([z[:, 0], 1 - z[:, 0]], dim=1),
    "nan": lambda z: z * float("nan"),
    "one infinite score": lambda z: torch.cat([z[:-1], z[-1:] + float("inf")]),
}


def made(case, last):
    torch.manual_seed(int(case.rng.integers(10**6)))
    return Behind(LASTS[last])


def some_rows(case, rows):
    """Large enough that raw scores leave the range from 0 to 1."""
    return torch.tensor(case.rng.normal(0, 20, (rows, 4)), dtype=torch.float32)


def expect(attempt, case, last, criterion, word, *, rows=64, hint=""):
    name = type(criterion).__name__
    case.equal(
        given=f"forward gives {last}, {rows} row{'s' * (rows > 1)}, {name}",
        expected=word,
        got=attempt(made(case, last), some_rows(case, rows), criterion),
        hint=hint,
    )


@exercise.check(Stage.TYPE, hint="words")
def it_says_one_word(attempt, case):
    """it returns one of the five words"""
    for last in ("raw scores", "softmax"):
        got = attempt(made(case, last), some_rows(case, 8), CROSS)
        case.true(
            isinstance(got, str) and got in WORDS,
            given=f"forward gives {last}, 8 rows",
            expected=f"one of {', '.join(WORDS)}",
            got=got,
        )


@exercise.check(Stage.SHAPE, hint="by-row")
def a_softmax_is_seen_in_any_batch(attempt, case):
    """a softmax in front of CrossEntropyLoss is seen with one row as with many"""
    for rows in (1, 2, 32, int(case.rng.integers(33, 300))):
        expect(attempt, case, "softmax", CROSS, "probabilities", rows=rows)


@exercise.check(Stage.SHAPE, hint="tautology")
def raw_scores_are_fine_in_any_batch(attempt, case):
    """raw scores in front of CrossEntropyLoss are ok, with one row as with many"""
    for rows in (1, 2, 32, int(case.rng.integers(33, 300))):
        expect(attempt, case, "raw scores", CROSS, "ok", rows=rows)


@exercise.check(Stage.RANGE, hint="range")
def scores_that_sum_to_one_are_no_probabilities(attempt, case):
    """rows that sum to one but leave the range from 0 to 1 are raw scores"""
    expect(attempt, case, "scores that sum to one", CROSS, "ok")


@exercise.check(Stage.RANGE, hint="relu")
def large_positive_scores_are_scores(attempt, case):
    """a ReLU behind the last layer gives no probabilities: its values exceed 1"""
    expect(attempt, case, "ReLU", CROSS, "ok")


@exercise.check(Stage.RANGE, hint="finite")
def nan_is_named(attempt, case):
    """nan and infinite scores are named, whatever the loss"""
    for last in ("nan", "one infinite score"):
        for criterion in (CROSS, NLL):
            expect(attempt, case, last, criterion, "nan")
    x = some_rows(case, 64)
    x[-1, 0] = float("nan")
    case.equal(
        given="forward gives raw scores, the last of 64 rows has a missing value",
        expected="nan",
        got=attempt(made(case, "raw scores"), x, CROSS),
    )


@exercise.check(Stage.VALUE, hint="sigmoid")
def two_sigmoids_are_bounded(attempt, case):
    """a sigmoid for each column is bounded"""
    expect(attempt, case, "sigmoid", CROSS, "bounded")


@exercise.check(Stage.VALUE, hint="log-probabilities")
def log_probabilities_pass(attempt, case):
    """log-probabilities are ok for both losses"""
    expect(attempt, case, "log_softmax", CROSS, "ok")
    expect(attempt, case, "log_softmax", NLL, "ok")


@exercise.check(Stage.VALUE, hint="criterion")
def the_loss_decides(attempt, case):
    """raw scores and probabilities are both wrong for NLLLoss, and told apart"""
    expect(attempt, case, "raw scores", NLL, "logits")
    expect(attempt, case, "softmax", NLL, "probabilities")


@exercise.check(Stage.STRESS, hint="leave-as-found")
def the_model_is_left_as_it_was(attempt, case):
    """mode, buffers and gradients of the model stay as they were; one row is enough"""
    torch.manual_seed(int(case.rng.integers(10**6)))
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    for training in (True, False):
        model.train(training)
        before = copy.deepcopy(model.state_dict())
        got = attempt(model, some_rows(case, 1), CROSS)
        given = f"a net with batch norm and dropout, training={training}, one row"
        case.equal(given=given, expected="ok", got=got)
        case.equal(given=f"{given}: mode after", expected=training, got=model.training)
        after = model.state_dict()
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        case.equal(given=f"{given}: what changed", expected=[], got=changed)


@exercise.check(Stage.STRESS, hint="leave-as-found")
def it_leaves_the_mode_when_the_model_raises(attempt, case):
    """a model that raises is left in its mode, and its error is not hidden"""
    model = made(case, "raw scores").train()
    case.raises(
        RuntimeError,
        lambda: attempt(model, torch.ones(2, 99), CROSS),
        given="rows of 99 columns for a net of 4",
    )
    case.equal(given="training=True, a call that raised: after", expected=True, got=model.training)


@exercise.solution
def diagnose(model, x, criterion):
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            out = model(x)
    finally:
        model.train(was_training)

    def normalised(values):
        return torch.allclose(values.sum(dim=-1), torch.ones(len(values)), atol=1e-4)

    if not torch.isfinite(out).all():
        return "nan"
    if ((out >= 0) & (out <= 1)).all():
        return "probabilities" if normalised(out) else "bounded"
    if isinstance(criterion, nn.NLLLoss):
        return "ok" if normalised(out.exp()) else "logits"
    return "ok"


@exercise.another_way
def diagnose_by_logarithms(model, x, criterion):
    """Ask whether a further log_softmax would change anything, and work on a copy."""
    copied = copy.deepcopy(model).eval()
    with torch.inference_mode():
        out = copied(x)
        logs = out.clamp_min(1e-30).log()
        as_log, as_probability = out.log_softmax(-1), logs.log_softmax(-1).exp()
    if out.isnan().any() or out.isinf().any():
        return "nan"
    if out.min() >= 0 and out.max() <= 1:
        return "probabilities" if (as_probability - out).abs().max() < 1e-4 else "bounded"
    takes_logits = isinstance(criterion, nn.CrossEntropyLoss)
    return "ok" if takes_logits or (as_log - out).abs().max() < 1e-3 else "logits"


@exercise.wrong("by-row")
def received_check(model, x, criterion):
    """The received check: the sum of everything that forward returned."""
    out = model(x)
    return "probabilities" if 0.99 < out.sum().item() < 1.01 else "ok"


@exercise.wrong("tautology")
def softmax_first(model, x, criterion):
    """Applies a softmax before it looks, so every net has probabilities."""
    out = model(x).softmax(-1)
    return "probabilities" if torch.allclose(out.sum(-1), torch.ones(len(out))) else "ok"


@exercise.wrong("words")
def a_dictionary(model, x, criterion):
    """Returns a report instead of the word."""
    return {"verdict": diagnose(model, x, criterion)}


@exercise.wrong("range")
def only_sums(model, x, criterion):
    """Row sums and nothing else."""
    out = model(x)
    return "probabilities" if torch.allclose(out.sum(-1), torch.ones(len(out))) else "ok"


@exercise.wrong("relu")
def nothing_negative(model, x, criterion):
    """Takes the absence of negative values for probabilities."""
    out = model(x)
    if torch.allclose(out.sum(-1), torch.ones(len(out)), atol=1e-4) and (out >= 0).all():
        return "probabilities"
    return "bounded" if (out >= 0).all() else "ok"


@exercise.wrong("finite")
def never_asks_for_nan(model, x, criterion):
    """Every comparison with nan is false, so nan is ok."""
    out = model(x)
    if (out < 0).any() or (out > 1).any():
        return "ok"
    sums = torch.allclose(out.sum(-1), torch.ones(len(out)), atol=1e-4)
    return "probabilities" if sums else "bounded" if (out >= 0).all() else "ok"


@exercise.wrong("sigmoid")
def no_sigmoids(model, x, criterion):
    """Knows softmax or nothing."""
    word = diagnose(model, x, criterion)
    return "ok" if word == "bounded" else word


@exercise.wrong("log-probabilities")
def forbids_log_softmax(model, x, criterion):
    """Calls anything normalised a mistake, log-probabilities too."""
    word = diagnose(model, x, criterion)
    with torch.no_grad():
        sums = model(x).exp().sum(-1)
    return "probabilities" if torch.allclose(sums, torch.ones(len(x)), atol=1e-4) else word


@exercise.wrong("criterion")
def always_wants_logits(model, x, criterion):
    """Judges by one loss, whichever is given."""
    return diagnose(model, x, CROSS)


@exercise.wrong("leave-as-found")
def in_training_mode(model, x, criterion):
    """Runs the model as it finds it: batch norm refuses one row, or counts it in."""
    with torch.no_grad():
        out = model(x)
    return diagnose(nn.Identity(), out, criterion)


@exercise.wrong("leave-as-found")
def stays_in_evaluation(model, x, criterion):
    """Switches to evaluation and never back: the rest of the training has no dropout."""
    with torch.no_grad():
        out = model.eval()(x)
    return diagnose(nn.Identity(), out, criterion)


@exercise.wrong("leave-as-found")
def no_finally(model, x, criterion):
    """Puts the mode back only when nothing goes wrong."""
    was_training = model.training
    with torch.no_grad():
        out = model.eval()(x)
    model.train(was_training)
    return diagnose(nn.Identity(), out, criterion)
