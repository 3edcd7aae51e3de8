"""A model loaded once, warm before it is seen, and exchanged while requests are being answered.

Loading costs many times what a prediction does (unpickling, not the disk), so it must not stand
in the path of a request; and a model changes while its server runs. `ModelHolder` keeps the
current model behind one reference to a frozen record. Readers take the reference and nothing
else; a writer prepares the next record at leisure and then replaces the reference. That is
read-copy-update (McKenney and Slingwine, 1998) with Python's garbage collector to end the grace
period: a prediction finishes on the model it began with, and the old model goes when the last
such prediction has.

The first load is a *single flight*: whoever comes first loads, everybody else waits for that one
outcome, good or bad. An error is not remembered: who asks after it tries again.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from companion.serving.checksummed import ChecksummedFile
from companion.serving.errors import ModelLoadError, ModelReloadError, WarmUpError


class Model(Protocol):
    """Whatever predicts probabilities as scikit-learn's classifiers do."""

    def predict_proba(self, X: Any, /) -> NDArray[np.floating[Any]]:
        """Probabilities (rows × classes) for `X` (rows × features)."""
        ...


@dataclass(frozen=True)
class HolderStatus:
    """What a holder holds: `generation` models have been published, the current one at `loaded_at`.

    `loads` counts the times the loader was called, failures included. `last_error` is the text of
    the latest failure, None again after a success. `version` names the current model, None before
    there is one.
    """

    name: str
    version: str | None = None
    loaded_at: datetime | None = None
    generation: int = 0
    loads: int = 0
    last_error: str | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a model to answer with."""
        return self.generation > 0


M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class _Serving(Generic[M]):
    model: M
    generation: int


class ModelHolder(Generic[M]):
    """The current model, shared by all threads of one process.

    `loader` makes a model; it is called once for the first prediction and once for each reload,
    never by two threads at once. `warm_up` are rows (as a request would bring them) that a new
    model must answer with finite probabilities before anybody sees it. `version_of` names a model
    for `status`, by default its generation. `clock` gives the time (aware of its zone) for
    `status`.

    No lock is held while a request predicts.
    """

    def __init__(
        self,
        loader: Callable[[], M],
        *,
        warm_up: Any = None,
        name: str = "model",
        version_of: Callable[[M], str] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._loader = loader
        self._warm_up = warm_up
        self._version_of = version_of
        self._clock = clock
        self._load_lock = threading.Lock()  # one load at a time; no request waits for a reload
        self._state_lock = threading.Lock()  # held only to assign the three below
        self._serving: _Serving[M] | None = None
        self._status = HolderStatus(name)
        self._first_load: Future[_Serving[M]] | None = None

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        sha256: str | Callable[[], str],
        parse: Callable[[bytes], M],
        warm_up: Any = None,
        name: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Self:
        """A holder of the model in the file `path`; its version is the start of its checksum.

        The file is read once, its SHA-256 compared with `sha256`, and only then are those very
        bytes given to `parse`. `sha256` must come from elsewhere than the file does; given as a
        function it is asked at every load, so that a reload can follow a new release. A checksum
        says *which* file it is, not that it is harmless: use a `parse` that runs no code of the
        file (ONNX, skops) wherever the file was not made by you.

        A mismatch is `ChecksumMismatchError`, as the cause of the load or reload error.
        """
        file = ChecksummedFile(Path(path), sha256, parse)
        return cls(
            file,
            warm_up=warm_up,
            name=name or file.path.name,
            version_of=lambda _: file.version,
            clock=clock,
        )

    def predict_proba(self, X: Any) -> NDArray[np.floating[Any]]:
        """The current model's probabilities (rows × classes) for `X` (rows × features).

        Loads first where nothing is loaded yet; raises `ModelLoadError` where that fails, and what
        the model raises.
        """
        return self.current().predict_proba(X)

    def current(self) -> M:
        """The current model itself, for who asks it twice or has to know which one it was.

        Loads first where nothing is loaded yet; raises `ModelLoadError` where that fails.
        """
        serving = self._serving
        if serving is None:
            serving = self._load_first()
        return serving.model

    def load(self) -> HolderStatus:
        """Load and warm up now, if that has not been done; raises `ModelLoadError`."""
        if self._serving is None:
            self._load_first()
        return self.status()

    def reload(self) -> HolderStatus:
        """Load a new model, warm it up, and put it in the place of the old one.

        Requests go on being answered by the old model until the new one is ready, and for good
        where that fails. Raises `ModelReloadError` (the reason is its cause), or `ModelLoadError`
        where there is no old model.
        """
        with self._load_lock:
            try:
                self._load_and_publish()
            except Exception as error:
                kept = self._status
                if not kept.ready:
                    raise ModelLoadError(kept.name, error) from error
                raise ModelReloadError(kept.name, kept.generation, error) from error
        return self.status()

    def status(self) -> HolderStatus:
        """What is held now, at no cost and without waiting."""
        return self._status

    def _load_first(self) -> _Serving[M]:
        with self._state_lock:
            if self._serving is not None:
                return self._serving
            flight = self._first_load
            is_mine = flight is None
            if flight is None:
                flight = self._first_load = Future()
        if not is_mine:
            return self._outcome_of(flight)
        try:
            with self._load_lock:
                # A reload may have been faster than the first prediction.
                flight.set_result(self._serving or self._load_and_publish())
        except BaseException as error:
            flight.set_exception(error)
            if not isinstance(error, Exception):
                raise  # KeyboardInterrupt belongs to this thread; those that wait get a load error
        finally:
            with self._state_lock:
                self._first_load = None
        return self._outcome_of(flight)

    def _outcome_of(self, flight: "Future[_Serving[M]]") -> _Serving[M]:
        error = flight.exception()
        if error is not None:
            # One exception object for each thread: a traceback must not be written by two.
            raise ModelLoadError(self._status.name, error) from error
        return flight.result()

    def _load_and_publish(self) -> _Serving[M]:
        """Call with `_load_lock` held."""
        with self._state_lock:
            self._status = replace(self._status, loads=self._status.loads + 1)
        try:
            model = self._loader()
            if self._warm_up is not None:
                _warm_up(model, self._warm_up)
            serving = _Serving(model, self._status.generation + 1)
            version = self._version_of(model) if self._version_of else str(serving.generation)
            loaded_at = self._clock()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            with self._state_lock:
                self._status = replace(self._status, last_error=text)
            raise
        with self._state_lock:
            self._serving = serving
            self._status = replace(
                self._status,
                version=version,
                loaded_at=loaded_at,
                generation=serving.generation,
                last_error=None,
            )
        return serving


def _warm_up(model: Model, rows: Any) -> None:
    # The first prediction builds caches and thread pools; and a model that answers it with anything
    # but probabilities (logits, NaN) must not meet a request.
    answer = np.asarray(model.predict_proba(rows), dtype="float64")
    if answer.ndim != 2 or len(answer) != len(rows):
        raise WarmUpError(f"{len(rows)} rows were answered by an array of shape {answer.shape}")
    if not ((answer >= 0) & (answer <= 1)).all():
        raise WarmUpError("the answer holds values that are no probabilities")
