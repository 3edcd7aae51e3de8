"""A small neural network for fraud, and the pipeline that lets scikit-learn train it.

skorch makes a PyTorch module look like a scikit-learn classifier, and leaves four things to its
user, each of which fails late or in silence:

- *The loss.* `NeuralNetClassifier` assumes `NLLLoss`, takes the module's output for
  probabilities, and takes their logarithm. A module that returns logits then learns nothing,
  without an error. Here the module returns logits and the loss is `CrossEntropyLoss`, for which
  skorch applies the softmax itself when it predicts (Goodfellow et al., *Deep Learning*, 6.2.2:
  why the two belong together).
- *The type.* NumPy and pandas think in float64, a module in float32.
- *The data.* By default a fifth is held out inside `fit`, even within cross-validation.
- *The seed.* Weights and batches are drawn from PyTorch's global generator. Here a fit draws from
  its own seed, so two fits agree bit for bit, and leaves the global generator as it was.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import validate_data
from skorch import NeuralNetClassifier

from companion.models.labels import as_labels

ClassWeight = Literal["balanced"] | Mapping[int, float] | None


class DeviceUnavailableError(RuntimeError):
    """`device` was asked for and PyTorch finds no such device here."""

    def __init__(self, device: str) -> None:
        super().__init__(f'there is no device {device!r} here; device="cpu" works everywhere')
        self.device = device


class FraudMLP(torch.nn.Module):
    """A multilayer perceptron: rows × `n_features` in, rows × 2 *logits* out, never probabilities.

    `hidden` gives the width of each hidden layer; the columns of the output are legitimate and
    fraud.
    """

    def __init__(self, n_features: int, hidden: Sequence[int] = (32, 16)) -> None:
        super().__init__()
        widths = [n_features, *hidden]
        layers: list[torch.nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (rows × 2) of float32 features `x` (rows × features)."""
        logits: torch.Tensor = self.layers(x)
        return logits


class Float32(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Any table of finite numbers as a float32 array, whatever output scikit-learn is set to.

    A DataFrame would reach the module column by column, as keyword arguments, so this step answers
    `set_output` by staying as it is. Raises `ValueError` for missing and infinite values, and for
    other columns than those it was fitted to.
    """

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn the names and the number of the columns; nothing else is to be learned."""
        validate_data(self, X, dtype=np.float32)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """`X` (rows × features) as float32."""
        array: NDArray[np.float32] = validate_data(self, X, dtype=np.float32, reset=False)
        return array

    def set_output(self, *, transform: str | None = None) -> Self:
        """Keep giving arrays: the only consumer is a neural network."""
        return self


class FraudNet(NeuralNetClassifier):  # type: ignore[misc]
    """skorch's classifier with the loss, the seed and the labels in order; takes float32 arrays.

    `seed` decides weights and batches of every `fit`. `class_weight` is None, `"balanced"` (each
    class weighs the same in sum), or a weight for each of 0 and 1. The width of the input is
    taken from the data. Everything else is skorch's.
    """

    def __init__(
        self,
        module: type[torch.nn.Module] = FraudMLP,
        *args: Any,
        criterion: type[torch.nn.Module] = torch.nn.CrossEntropyLoss,
        optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
        train_split: Any = None,
        verbose: int = 0,
        seed: int = 0,
        class_weight: ClassWeight = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            module,
            *args,
            criterion=criterion,
            optimizer=optimizer,
            train_split=train_split,
            verbose=verbose,
            **kwargs,
        )
        self.seed = seed
        self.class_weight = class_weight

    def fit(self, X: NDArray[np.float32], y: ArrayLike, **fit_params: Any) -> Self:
        """Train from scratch on `X` (rows × features) and `y` (rows); raises `LabelError`."""
        labels = as_labels(y)
        self.n_features_in_ = X.shape[1]
        self.class_weight_ = compute_class_weight(
            self.class_weight, classes=np.array([0, 1]), y=labels
        )
        with _own_randomness(self.seed):
            super().fit(X, labels, **fit_params)
        return self

    def initialize_module(self) -> Self:
        """Build the module as wide as the data."""
        width = {"n_features": self.n_features_in_} if hasattr(self, "n_features_in_") else {}
        self.module_ = self.initialized_instance(self.module, width | self.get_params_for("module"))
        return self

    def initialize_criterion(self) -> Self:
        """Build the loss with the weights of the classes."""
        weight = {}
        if self.class_weight is not None and hasattr(self, "class_weight_"):
            weight = {"weight": torch.tensor(self.class_weight_, dtype=torch.float32)}
        self.criterion_ = self.initialized_instance(
            self.criterion, weight | self.get_params_for("criterion")
        )
        return self


def make_net(
    *,
    lr: float = 1e-3,
    epochs: int = 20,
    hidden: Sequence[int] = (32, 16),
    batch_size: int = 256,
    seed: int = 0,
    class_weight: ClassWeight = None,
    device: str = "cpu",
) -> Pipeline:
    """A pipeline `scale` → `float32` → `net` that behaves as any scikit-learn classifier.

    It fits DataFrames and arrays of any number type, predicts probabilities (rows × 2, each row
    sums to 1), can be cloned, pickled, cross-validated and tuned (`net__lr`,
    `net__module__hidden`, …), trains on all rows that it is given, and gives the same model for
    the same seed. `device` is `"cpu"`, `"cuda"` or `"cuda:1"` and so on; inputs and probabilities
    stay NumPy arrays.

    Raises `DeviceUnavailableError` for a device that is not there, `LabelError` when fitted to
    labels other than 0 and 1, `ValueError` for missing or infinite features.
    """
    _check_device(device)
    net = FraudNet(
        lr=lr,
        max_epochs=epochs,
        module__hidden=tuple(hidden),
        batch_size=batch_size,
        iterator_train__shuffle=True,
        seed=seed,
        class_weight=class_weight,
        device=device,
    )
    return Pipeline([("scale", StandardScaler()), ("float32", Float32()), ("net", net)])


def _check_device(device: str) -> None:
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise DeviceUnavailableError(device) from error
    if wanted.type == "cpu":
        return
    if wanted.type != "cuda" or (wanted.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailableError(device)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let PyTorch use one thread inside the block: faster for nets this small.

    The number of threads belongs to the whole process, so do not enter this in several threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    # Only the CPU's generator: weights are drawn there, and torch.manual_seed would reach for the
    # GPUs.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
