"""Train the landscape behind `Surface`: some hundreds of networks at once, each real.

    python -m companion.models.tuning.landscape fixtures/tuning_surface.npz

All networks of one width are trained together, as one batch of matrices: the same rows in the same
order, each with its own weights, learning rate and weight decay. One thread, seeded generators and
float32 make a second run agree with the first; on another processor sums are rounded otherwise,
and the values agree to about a hundredth.

The rule is Adam's (Kingma and Ba, ICLR 2015), written out since every network has a learning rate
of its own; weight decay is added to the gradient, as `torch.optim.Adam` does it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from companion.models.network import single_threaded
from companion.models.tuning.objective import TuningData
from companion.models.tuning.surface import FIXTURE, Surface
from companion.transactions import simulate

SEED = 20
ROWS = 30_000
FRAUD_RATE = 0.05
EPOCHS = 16
BATCH = 128
LEARNING_RATES = np.geomspace(1e-4, 1.0, 17)
WIDTHS = np.array([4, 8, 16, 32, 64, 128])
DECAYS = np.geomspace(1e-6, 1e-1, 6)
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


def landscape(
    *,
    learning_rates: Sequence[float] | NDArray[np.float64] = LEARNING_RATES,
    widths: Sequence[int] | NDArray[np.int64] = WIDTHS,
    decays: Sequence[float] | NDArray[np.float64] = DECAYS,
    epochs: int = EPOCHS,
) -> Surface:
    """Train one network for each combination and keep its average precision after every epoch.

    A network's curve does not depend on which others are trained beside it.
    """
    transactions = simulate(ROWS, seed=SEED, fraud_rate=FRAUD_RATE)
    data = TuningData.from_transactions(transactions, test_share=0.05, validation_share=0.6)
    scaler = StandardScaler().fit(data.X_train)
    X, X_validation = (
        torch.from_numpy(scaler.transform(part).astype(np.float32))
        for part in (data.X_train, data.X_validation)
    )
    y, y_validation = np.asarray(data.y_train), np.asarray(data.y_validation)
    rates, penalties = np.meshgrid(learning_rates, decays, indexing="ij")
    curves = np.empty((len(learning_rates), len(widths), len(decays), epochs))
    with single_threaded():
        for at, width in enumerate(widths):
            nets = _Nets.drawn(X.shape[1], int(width), rates.ravel(), penalties.ravel())
            for epoch in range(epochs):
                nets.train(X, torch.from_numpy(y.astype(np.float32)), epoch)
                scores = nets.logits(X_validation).numpy()
                values = [_worth(y_validation, of_one) for of_one in scores]
                curves[:, at, :, epoch] = np.reshape(values, rates.shape)
    return Surface(
        lr=np.asarray(learning_rates, dtype=np.float64),
        hidden=np.asarray(widths, dtype=np.float64),
        weight_decay=np.asarray(decays, dtype=np.float64),
        curves=curves,
        base_rate=float(y_validation.mean()),
    )


@dataclass
class _Nets:
    """Networks of one hidden layer, side by side along the first axis of every tensor."""

    weights: list[torch.Tensor]
    rate: torch.Tensor
    decay: torch.Tensor
    means: list[torch.Tensor]
    squares: list[torch.Tensor]
    steps: int = 0

    @classmethod
    def drawn(
        cls,
        features: int,
        width: int,
        rates: NDArray[np.float64],
        decays: NDArray[np.float64],
    ) -> _Nets:
        """As many as there are rates, with the same first weights (He et al., 2015)."""
        generator = torch.Generator().manual_seed(SEED)
        shapes = [(features, width), (1, width), (width, 1), (1, 1)]
        first = [
            torch.randn(shape, generator=generator) * (2 / shape[0]) ** 0.5
            if shape[0] > 1
            else torch.zeros(shape)
            for shape in shapes
        ]
        weights = [tensor.repeat(len(rates), 1, 1).requires_grad_() for tensor in first]
        column = (len(rates), 1, 1)
        return cls(
            weights,
            rate=torch.tensor(rates, dtype=torch.float32).reshape(column),
            decay=torch.tensor(decays, dtype=torch.float32).reshape(column),
            means=[torch.zeros_like(tensor) for tensor in weights],
            squares=[torch.zeros_like(tensor) for tensor in weights],
        )

    def _forward(self, X: torch.Tensor) -> torch.Tensor:
        into, bias, out, offset = self.weights
        return (torch.relu(X @ into + bias) @ out + offset).squeeze(-1)

    @torch.no_grad()
    def logits(self, X: torch.Tensor) -> torch.Tensor:
        """Networks × rows."""
        return self._forward(X)

    def train(self, X: torch.Tensor, y: torch.Tensor, epoch: int) -> None:
        """One pass over all rows, in an order that the epoch decides."""
        order = torch.from_numpy(np.random.default_rng([SEED, epoch]).permutation(len(X)))
        for rows in torch.split(order, BATCH):
            logits = self._forward(X[rows])
            target = y[rows].expand_as(logits)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, target, reduction="none"
            )
            # A mean over rows and a sum over networks: none feels the others.
            self._step(torch.autograd.grad(loss.mean(1).sum(), self.weights))

    @torch.no_grad()
    def _step(self, gradients: Sequence[torch.Tensor]) -> None:
        self.steps += 1
        first, second = _BETAS
        for weight, gradient, mean, square in zip(
            self.weights, gradients, self.means, self.squares, strict=True
        ):
            pulled = gradient + self.decay * weight
            mean.mul_(first).add_(pulled, alpha=1 - first)
            square.mul_(second).addcmul_(pulled, pulled, value=1 - second)
            corrected = mean / (1 - first**self.steps)
            scale = (square / (1 - second**self.steps)).sqrt() + _EPSILON
            weight.sub_(self.rate * corrected / scale)


def _worth(y: NDArray[np.int64], scores: NDArray[np.float32]) -> float:
    # A network that diverged ranks nothing: it is worth what guessing is.
    if not np.isfinite(scores).all():
        return float(y.mean())
    return float(average_precision_score(y, scores))


if __name__ == "__main__":
    target = sys.argv[1] if len(sys.argv) > 1 else FIXTURE
    made = landscape()
    made.save(target)
    print(f"{made.curves[..., 0].size} networks, best {made.best:.3f} at {made.best_parameters}")
