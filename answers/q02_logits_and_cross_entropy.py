"""Q02 · Logits and cross-entropy: the exercise, its checks, and the mistakes they catch."""

import torch
import torch._dynamo  # the first optimizer imports it: once here, not again in each check's fork
from torch import nn
from torch.nn import functional

from companion.study import Exercise, Stage

exercise = Exercise(
    "FraudMLP",
    hints={
        "start": (
            "Write forward as if no loss existed: layer, ReLU, dropout, layer. Nothing else.",
            "What comes out of the last layer are the logits, and the loss wants exactly those.",
            "predict_proba takes what forward gives and turns each row into two numbers that sum "
            "to one.",
        ),
        "shapes": (
            "One row in, one row out, whether there is one row or a hundred.",
            "The last layer gives two columns, legitimate and fraud. Keep both: no squeeze, no "
            "[:, 1] inside the model.",
        ),
        "probabilities": (
            "Look at what predict_proba returns for three rows: do they sum to one, row by row?",
            "The softmax runs over the columns of a row: dim=-1.",
            "return self(x).softmax(dim=-1)",
        ),
        "twice": (
            "Where else is a softmax applied to what forward returns?",
            "CrossEntropyLoss applies one when it trains. With a second one in forward the loss "
            "cannot get below 0.3133, however good the net is.",
            "Return self.last(…) as it is.",
        ),
        "independent": (
            "What range can the two columns of forward have, and what range do logits have?",
            "CrossEntropyLoss takes a softmax over both columns. A sigmoid, a tanh or a ReLU "
            "behind the last layer limits how far apart they can get, or in which direction.",
            "No activation behind the last layer.",
        ),
        "dropout-used": (
            "In training mode, ask forward for the same row twice. Should the answers be equal?",
            "The dropout layer does nothing until forward calls it, between ReLU and last layer.",
        ),
        "overflow": (
            "Try your net on inputs a thousand times larger. Which number becomes infinite?",
            "softmax rounds the smaller probability to 0, and log(0) is -inf. If you want "
            "logarithms, log_softmax computes them in one step.",
            "Or leave both to the loss and return the logits.",
        ),
        "same-model": (
            "The probabilities that you serve are not those of the model that was trained.",
            "Training used softmax(forward(x)). Serving has to use the same function, once.",
        ),
        "dropout": (
            "Ask for the same row twice. Why do the answers differ?",
            "In training mode the dropout layer throws units away. A prediction is made in "
            "evaluation mode: self.eval().",
        ),
        "leave-as-found": (
            "What state was the net in before predict_proba, and in what state is it after?",
            "Somebody who predicts between two epochs goes on training afterwards, with dropout. "
            "Remember self.training, and put it back with self.train(…), in a finally.",
        ),
        "no-graph": (
            "What hangs on the tensor that you return?",
            "Without torch.no_grad() every served score keeps the whole computation alive, and "
            ".numpy() refuses it.",
        ),
    },
)

GIVEN = "float32 rows"


def net_of(attempt, case, width=5):
    torch.manual_seed(int(case.rng.integers(10**6)))
    return attempt(width)


def some_rows(case, rows, width=5, scale=1.0):
    return torch.tensor(case.rng.normal(0, scale, (rows, width)), dtype=torch.float32)


@exercise.check(Stage.TYPE, hint="start")
def it_is_a_module_that_runs(attempt, case):
    """forward and predict_proba each return a float32 tensor"""
    net, x = net_of(attempt, case), some_rows(case, 3)
    for name, result in (("forward", net(x)), ("predict_proba", net.predict_proba(x))):
        case.true(
            isinstance(result, torch.Tensor) and result.dtype == torch.float32,
            given=f"{name} of 3 {GIVEN}",
            expected="a float32 tensor",
            got=f"{type(result).__name__} {getattr(result, 'dtype', '')}",
        )


@exercise.check(Stage.SHAPE, hint="shapes")
def two_columns_for_any_number_of_rows(attempt, case):
    """rows × 2 comes out, for one row as for many"""
    net = net_of(attempt, case)
    for rows in (1, int(case.rng.integers(2, 200))):
        x = some_rows(case, rows)
        got = (tuple(net(x).shape), tuple(net.predict_proba(x).shape))
        case.equal(given=f"{rows} {GIVEN}", expected=((rows, 2), (rows, 2)), got=got)


@exercise.check(Stage.RANGE, hint="probabilities")
def each_row_sums_to_one(attempt, case):
    """predict_proba gives values from 0 to 1, and each row sums to one"""
    net = net_of(attempt, case)
    p = net.predict_proba(some_rows(case, 40, scale=3.0)).detach()
    case.true(
        bool(((p >= 0) & (p <= 1)).all()),
        given=f"40 {GIVEN}",
        expected="values from 0 to 1",
        got=f"{p.min():.2f} to {p.max():.2f}",
    )
    sums = p.sum(dim=-1)
    case.true(
        torch.allclose(sums, torch.ones(40), atol=1e-5),
        given=f"40 {GIVEN}",
        expected="row sums of 1",
        got=f"sums from {sums.min():.2f} to {sums.max():.2f}",
    )


@exercise.check(Stage.RANGE, hint="independent")
def scores_are_not_squeezed(attempt, case):
    """forward gives scores of any sign, not values that an activation has squeezed"""
    net, x = net_of(attempt, case).eval(), some_rows(case, 200, scale=5.0)
    out = net(x).detach()
    normalised = torch.allclose(out.sum(dim=-1), torch.ones(200), atol=1e-4)
    case.true(
        bool((out < 0).any()),
        given=f"200 {GIVEN}, an untrained net",
        expected="some values below zero",
        got="rows that sum to 1" if normalised else f"{out.min():.2f} to {out.max():.2f}",
        hint="twice" if normalised else "independent",
    )


@exercise.check(Stage.RANGE, hint="overflow")
def extreme_inputs_stay_finite(attempt, case):
    """inputs a thousand times larger give a finite loss and no nan"""
    net = net_of(attempt, case).eval()
    x = some_rows(case, 50, scale=1_000.0)
    for label in (0, 1):
        loss = functional.cross_entropy(net(x), torch.full((50,), label)).item()
        case.true(
            loss == loss and loss != float("inf"),
            given=f"inputs of size 1,000, all labels {label}",
            expected="a finite loss",
            got=loss,
        )
    p = net.predict_proba(x)
    case.true(
        bool(torch.isfinite(p).all()),
        given="inputs of size 1,000",
        expected="finite probabilities",
        got="nan or infinite ones",
    )


@exercise.check(Stage.VALUE, hint="independent")
def the_loss_can_reach_zero(attempt, case):
    """trained on a problem that a line solves, the cross-entropy falls below 0.05"""
    net, x = net_of(attempt, case), some_rows(case, 200)
    x = x[x[:, 0].abs() > 0.3]
    y = (x[:, 0] > 0).long()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(120):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        final = functional.cross_entropy(net(x), y).item()
    case.true(
        final < 0.05,
        given="a separable problem, 120 steps of Adam",
        expected="a loss below 0.05",
        got=round(final, 4),
    )


@exercise.check(Stage.VALUE, hint="same-model")
def serving_is_the_trained_model(attempt, case):
    """predict_proba is the softmax of forward, once"""
    net = net_of(attempt, case).eval()
    x = some_rows(case, 30, scale=4.0)
    with torch.no_grad():
        expected = net(x).softmax(-1)
    got = net.predict_proba(x).detach()
    worst = int((got - expected).abs().amax(dim=-1).argmax())
    case.true(
        torch.allclose(got, expected, atol=1e-5),
        given="30 rows; the one that differs most",
        expected=[round(value, 3) for value in expected[worst].tolist()],
        got=[round(value, 3) for value in got[worst].tolist()],
    )


@exercise.check(Stage.STRESS, hint="dropout")
def the_same_row_has_one_score(attempt, case):
    """a row gets the same probabilities each time, in training mode too"""
    net = net_of(attempt, case).train()
    x = some_rows(case, 20)
    first, second = net.predict_proba(x), net.predict_proba(x)
    case.true(
        torch.equal(first, second),
        given="predict_proba of the same 20 rows, twice",
        expected="equal answers",
        got=f"up to {(first - second).abs().max():.2f} apart",
    )


@exercise.check(Stage.STRESS, hint="dropout-used")
def training_drops_units(attempt, case):
    """in training mode forward drops units, so the same row gives two results"""
    net, x = net_of(attempt, case).train(), some_rows(case, 50)
    case.true(
        not torch.equal(net(x), net(x)),
        given="forward of the same 50 rows, twice, in training mode",
        expected="different results",
        got="equal results",
    )


@exercise.check(Stage.STRESS, hint="leave-as-found")
def the_mode_is_left_as_it_was(attempt, case):
    """predict_proba leaves the net in the mode it found, also when the input is wrong"""
    for training in (True, False):
        net = net_of(attempt, case).train(training)
        net.predict_proba(some_rows(case, 2))
        case.equal(
            given=f"training={training} before predict_proba: after",
            expected=training,
            got=net.training,
        )
    net = net_of(attempt, case).train()
    case.raises(
        RuntimeError, lambda: net.predict_proba(torch.ones(2, 99)), given="rows of 99 columns"
    )
    case.equal(given="training=True, a call that raised: after", expected=True, got=net.training)


@exercise.check(Stage.STRESS, hint="no-graph")
def no_graph_is_kept(attempt, case):
    """what predict_proba returns carries no gradient"""
    net = net_of(attempt, case)
    p = net.predict_proba(some_rows(case, 3))
    case.equal(given="predict_proba(x).requires_grad", expected=False, got=p.requires_grad)


@exercise.solution
class FraudMLP(nn.Module):
    def __init__(self, n_features, hidden=16):
        super().__init__()
        self.inner = nn.Linear(n_features, hidden)
        self.dropout = nn.Dropout(0.2)
        self.last = nn.Linear(hidden, 2)

    def forward(self, x):
        return self.last(self.dropout(self.inner(x).relu()))

    @torch.no_grad()
    def predict_proba(self, x):
        was_training = self.training
        self.eval()
        try:
            return self(x).softmax(dim=-1)
        finally:
            self.train(was_training)


@exercise.another_way
class LogProbabilities(FraudMLP):
    """Normalised logarithms: the loss's own log_softmax leaves them as they are."""

    def forward(self, x):
        return super().forward(x).log_softmax(dim=-1)

    def predict_proba(self, x):
        was_training = self.training
        with torch.inference_mode():
            try:
                return self.eval()(x).exp()
            finally:
                self.train(was_training)


@exercise.another_way
class OneLogit(FraudMLP):
    """The second logit fixed at zero: a softmax of (0, z) is the sigmoid of z."""

    def __init__(self, n_features, hidden=16):
        super().__init__(n_features, hidden)
        self.last = nn.Linear(hidden, 1)

    def forward(self, x):
        z = super().forward(x)
        return torch.cat([torch.zeros_like(z), z], dim=-1)


@exercise.wrong("twice")
class ReceivedMistake(FraudMLP):
    """A softmax in forward, in front of a loss that applies its own."""

    def forward(self, x):
        return functional.softmax(super().forward(x), dim=-1)

    @torch.no_grad()
    def predict_proba(self, x):
        was_training = self.training
        try:
            return self.eval()(x)
        finally:
            self.train(was_training)


@exercise.wrong("independent")
class TwoSigmoids(FraudMLP):
    """A sigmoid per column, which a softmax then takes for logits."""

    def forward(self, x):
        return super().forward(x).sigmoid()


@exercise.wrong("independent")
class OnlyPositive(FraudMLP):
    """A ReLU behind the last layer as behind the others: half of the scores are cut to zero."""

    def forward(self, x):
        return super().forward(x).relu()


@exercise.wrong("independent")
class TanhBehind(FraudMLP):
    """A tanh behind the last layer: no two scores are further apart than 2."""

    def forward(self, x):
        return super().forward(x).tanh()


@exercise.wrong("overflow")
class LogOfSoftmax(FraudMLP):
    """The logarithm of a softmax in two steps: of a probability that rounds to 0, -inf."""

    def forward(self, x):
        return super().forward(x).softmax(dim=-1).log()


@exercise.wrong("probabilities")
class ServesLogits(FraudMLP):
    """Calls the logits probabilities."""

    @torch.no_grad()
    def predict_proba(self, x):
        return self(x)


@exercise.wrong("probabilities")
class OverTheRows(FraudMLP):
    """A softmax over the batch: the score of one customer depends on who else asked."""

    @torch.no_grad()
    def predict_proba(self, x):
        return self(x).softmax(dim=0)


@exercise.wrong("shapes")
class OnlyFraud(FraudMLP):
    """Gives the probability of fraud alone."""

    @torch.no_grad()
    def predict_proba(self, x):
        return self(x).softmax(dim=-1)[:, 1]


@exercise.wrong("start")
class NumpyOut(FraudMLP):
    """Returns an array where a tensor was asked for."""

    @torch.no_grad()
    def predict_proba(self, x):
        return self(x).softmax(dim=-1).numpy()


@exercise.wrong("same-model")
class SoftmaxTwiceOut(FraudMLP):
    """Trains on logits and applies the softmax twice when it serves."""

    @torch.no_grad()
    def predict_proba(self, x):
        return super().predict_proba(x).softmax(dim=-1)


@exercise.wrong("dropout")
class DropsWhileServing(FraudMLP):
    """Predicts in whatever mode the net is."""

    @torch.no_grad()
    def predict_proba(self, x):
        return self(x).softmax(dim=-1)


@exercise.wrong("dropout-used")
class NoDropout(FraudMLP):
    """Walks past the dropout layer."""

    def forward(self, x):
        return self.last(self.inner(x).relu())


@exercise.wrong("leave-as-found")
class StaysInEvaluation(FraudMLP):
    """Switches dropout off and never on again: the next epoch trains without it."""

    @torch.no_grad()
    def predict_proba(self, x):
        return self.eval()(x).softmax(dim=-1)


@exercise.wrong("no-graph")
class KeepsTheGraph(FraudMLP):
    """Forgets torch.no_grad()."""

    def predict_proba(self, x):
        was_training = self.training
        try:
            return self.eval()(x).softmax(dim=-1)
        finally:
            self.train(was_training)
