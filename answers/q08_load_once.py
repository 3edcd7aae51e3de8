"""Q08 · Load the model once: the exercise, its checks, and the mistakes they catch."""

import contextlib
import functools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar

import numpy as np

import companion.serving
from companion.study import Exercise, Stage
from companion.study.sandbox import Limits

exercise = Exercise(
    "ModelHolder",
    limits=Limits(seconds=6.0),
    hints={
        "start": (
            "Remember two things: the loader, and the model once there is one. Begin with a holder "
            "for a single thread.",
            "predict_proba: if there is no model yet, call the loader and keep what it returns; "
            "then ask the model. reload: call the loader and keep what it returns.",
            "When that works, add one lock around loading. It never needs to be held while the "
            "model predicts.",
        ),
        "predict": (
            "The holder hands X on as it is, and hands back what the model answers.",
            "`return model.predict_proba(X)`: not predict, no rows picked out, nothing rounded.",
        ),
        "lazy": (
            "Importing your module now loads the model, also for a test that never scores.",
            "In `__init__` only remember the loader. The first predict_proba calls it.",
        ),
        "one-load": (
            "Count how often the loader is called. Where do you keep what it returned?",
            "Keep the model in an attribute and call the loader only while that is None.",
        ),
        "reload": (
            "After reload the next answer must come from what the loader returned this time.",
            "A cache that is keyed by the loader or the path finds the old entry. reload calls the "
            "loader itself and replaces the attribute.",
            "Stopped at the time limit? A thread that takes a Lock which it already holds "
            "waits for itself.",
        ),
        "own-model": (
            "There are two holders, one for each of two models. Who answers for the second?",
            "Keep the model in the instance (`self._model`), not in a global or in the class.",
        ),
        "failed-reload": (
            "The new file is broken. Whoever asked for the reload must hear of it, and those who "
            "score must not.",
            "Call the loader first and touch the old model only when it has returned; let the "
            "loader's error pass, or raise your own from it.",
            "`self._model = self._loader()` does both: when the right side raises, the left side "
            "stays as it was.",
        ),
        "retry": (
            "The first load failed; a minute later the file is there. What does your holder do?",
            "Write down that the model is loaded after the loader has returned, not before, and "
            "keep no exception.",
        ),
        "race": (
            "Eight threads see that there is no model yet. What keeps them from all loading one?",
            "Looking and loading must be one step under a lock.",
            "Look again after you have got the lock: the thread before you may have loaded it "
            "(double-checked locking).",
        ),
        "swap": (
            "A reload takes seconds. What do requests get that arrive in the meantime?",
            "Leave the old model where it is until the new one is complete; then replace it in a "
            "single assignment.",
            "predict_proba needs the lock only while there is no model at all. Read the attribute "
            "without the lock first.",
        ),
        "in-place": (
            "A prediction was halfway through when the model changed under it.",
            "Put a new object in the place of the old one; never change the old object's contents.",
        ),
        "lock-free-predict": (
            "Your lock is held while the model predicts, so requests stand in a queue.",
            "Copy the attribute into a local variable, let go of the lock, and predict with the "
            "variable.",
        ),
        "one-at-a-time": (
            "Two reloads overlap and the one that started first ends last. Which model wins?",
            "Let reloads wait for each other: load and assign under the same lock as the first "
            "load. Numbering the loads and dropping the older one works too.",
        ),
    },
)

CALLERS = 8


class BrokenFileError(Exception):
    """The model file cannot be read."""


class LinearModel:
    """A model small enough to check by hand."""

    def __init__(self, weights):
        self.weights = weights

    def predict(self, X):
        return (X @ self.weights > 0).astype(int)

    def predict_proba(self, X):
        fraud = 1 / (1 + np.exp(-(X @ self.weights)))
        return np.column_stack([1 - fraud, fraud])


class NamedModel:
    """A model that answers its own name, so that a check sees who answered."""

    def __init__(self, name):
        self.name = name

    def predict_proba(self, X):
        return self.name


class Loader:
    """A loader that counts: call n gives results[n - 1], raising what is an exception."""

    def __init__(self, *results):
        self.results, self.calls, self._lock = results, 0, threading.Lock()

    def __call__(self):
        with self._lock:
            self.calls += 1
            number = self.calls
        return self.produced(number)

    def produced(self, number):
        result = self.results[min(number, len(self.results)) - 1]
        if isinstance(result, Exception):
            raise result
        return NamedModel(result) if isinstance(result, str) else result


class SlowLoader(Loader):
    """A loader whose calls do something before they return: `during[n]()` in call n."""

    def __init__(self, *results, during):
        super().__init__(*results)
        self.during = during

    def produced(self, number):
        self.during.get(number, lambda: None)()
        return super().produced(number)


def side_by_side(*calls):
    """The results of calls made in one thread each; what one of them raises is raised here."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]


def must_report(case, call, *, given):
    """Fail unless `call` raises the loader's BrokenFileError, or an error that was caused by it."""
    told = ()
    try:
        got = f"no error, but {call()!r}"
    except NotImplementedError:
        raise
    except Exception as error:
        told = (error, error.__cause__, error.__context__)
        got = f"{type(error).__name__}: {error}"
    case.true(
        any(isinstance(each, BrokenFileError) for each in told),
        given=given,
        expected="BrokenFileError, or an error raised from it",
        got=got,
    )


@exercise.check(Stage.TYPE, hint="predict")
def it_answers_as_the_model_does(attempt, case):
    """predict_proba(X) hands back what the model answers for all of X"""
    model, X = LinearModel(case.rng.normal(size=3)), case.rng.normal(size=(5, 3))
    got = attempt(Loader(model)).predict_proba(X)
    case.true(
        np.shape(got) == (5, 2) and np.allclose(got, model.predict_proba(X)),
        given="5 rows of 3 features and a model with predict_proba",
        expected="the model's own 5 × 2 probabilities",
        got=got,
    )


@exercise.check(Stage.SHAPE, hint="lazy")
def making_one_loads_nothing(attempt, case):
    """making a holder loads nothing"""
    loader = Loader("model 1")
    attempt(loader)
    case.equal(given="ModelHolder(loader): loads so far", expected=0, got=loader.calls)


@exercise.check(Stage.VALUE, hint="one-load")
def many_calls_load_once(attempt, case):
    """a hundred or so calls load the model once"""
    loader, calls = Loader("model 1"), int(case.rng.integers(100, 150))
    holder = attempt(loader)
    for _ in range(calls):
        holder.predict_proba([[0.0]])
    case.equal(given=f"{calls} calls of predict_proba: loads", expected=1, got=loader.calls)


@exercise.check(Stage.VALUE, hint="own-model")
def each_holder_has_its_own(attempt, case):
    """two holders answer with two models"""
    names = [f"model {n}" for n in case.rng.permutation(100)[:2]]
    holders = [attempt(Loader(name)) for name in names]
    got = [holder.predict_proba([[0.0]]) for holder in holders * 2]
    case.equal(given="two holders, each asked twice, in turn", expected=names * 2, got=got)


@exercise.check(Stage.VALUE, hint="reload")
def reload_brings_the_new_model(attempt, case):
    """after each reload the new model answers, and nothing is loaded twice"""
    reloads = int(case.rng.integers(2, 5))
    loader = Loader(*[f"model {n}" for n in range(1, reloads + 2)])
    holder = attempt(loader)
    answers = [holder.predict_proba([[0.0]])]
    for _ in range(reloads):
        holder.reload()
        answers.append(holder.predict_proba([[0.0]]))
    given = f"a prediction, then {reloads} times reload and a prediction"
    case.equal(given=given, expected=[f"model {n + 1}" for n in range(reloads + 1)], got=answers)
    case.equal(given=f"{given}: loads", expected=reloads + 1, got=loader.calls)


@exercise.check(Stage.VALUE, hint="failed-reload")
def a_failed_reload_keeps_the_old_model(attempt, case):
    """a reload that fails raises the loader's error, and the old model goes on answering"""
    loader = Loader("model 1", BrokenFileError("half a file"), "model 3")
    holder = attempt(loader)
    holder.predict_proba([[0.0]])
    given = "model 1 answers, and the loader raises BrokenFileError at the reload"
    must_report(case, holder.reload, given=given)
    case.equal(
        given=f"{given}; the next prediction, and loads so far",
        expected=("model 1", 2),
        got=(holder.predict_proba([[0.0]]), loader.calls),
    )


@exercise.check(Stage.VALUE, hint="retry")
def a_failed_first_load_is_tried_again(attempt, case):
    """a first load that fails raises the loader's error, and the next call tries again"""
    failures = int(case.rng.integers(1, 4))
    holder = attempt(Loader(*[BrokenFileError("no file yet")] * failures, "the model"))
    given = f"a loader that fails {failures} × before it works"
    for _ in range(failures):
        must_report(case, lambda: holder.predict_proba([[0.0]]), given=given)
    try:
        got = holder.predict_proba([[0.0]])
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
    case.equal(given=f"{given}; the call after that", expected="the model", got=got)


@exercise.check(Stage.STRESS, hint="race")
def threads_share_the_first_load(attempt, case):
    """eight threads that need the model at the same time cause one load"""
    together, inside = threading.Barrier(CALLERS), threading.Barrier(CALLERS)

    def wait_for_others():
        with contextlib.suppress(threading.BrokenBarrierError):
            inside.wait(0.4)  # whoever else loads has time to come

    loader = SlowLoader("model 1", during=dict.fromkeys(range(1, CALLERS + 1), wait_for_others))
    holder = attempt(loader)

    def caller():
        together.wait(5.0)
        return holder.predict_proba([[0.0]])

    answers = side_by_side(*[caller] * CALLERS)
    given = f"the first predictions of {CALLERS} threads at once"
    case.equal(given=f"{given}: loads", expected=1, got=loader.calls)
    case.equal(given=given, expected=["model 1"] * CALLERS, got=answers)


@exercise.check(Stage.STRESS, hint="lock-free-predict")
def predictions_run_side_by_side(attempt, case):
    """predictions in several threads run at the same time"""
    inside, met = threading.Barrier(CALLERS), []

    class Meeting:
        def predict_proba(self, X):
            if X != "warm-up":
                with contextlib.suppress(threading.BrokenBarrierError):
                    inside.wait(1.0)
                    met.append(1)
            return "model 1"

    holder = attempt(Loader(Meeting()))
    holder.predict_proba("warm-up")
    side_by_side(*[lambda: holder.predict_proba("together")] * CALLERS)
    given = f"{CALLERS} threads whose predictions wait for each other: those that met"
    case.equal(given=given, expected=CALLERS, got=len(met))


@exercise.check(Stage.STRESS, hint="swap")
def the_old_model_answers_during_a_reload(attempt, case):
    """while a reload is loading, predictions are answered at once by the old model"""
    loading, answered = threading.Event(), threading.Event()

    def slowly():
        loading.set()
        answered.wait(1.0)

    holder = attempt(SlowLoader("model 1", "model 2", "model 3", during={2: slowly}))
    before = holder.predict_proba([[0.0]])

    def caller():
        loading.wait(2.0)
        answer = holder.predict_proba([[0.0]])
        answered.set()
        return answer

    _, during = side_by_side(holder.reload, caller)
    case.equal(
        given="a prediction before, one while reload is still loading, one after",
        expected=["model 1", "model 1", "model 2"],
        got=[before, during, holder.predict_proba([[0.0]])],
    )


@exercise.check(Stage.STRESS, hint="in-place")
def a_prediction_ends_on_its_own_model(attempt, case):
    """a prediction that is under way when the model is replaced ends on the model it began with"""
    under_way, replaced = threading.Event(), threading.Event()

    class TwoSteps(NamedModel):
        def predict_proba(self, X):
            first = self.name
            if X == "slow":
                under_way.set()
                replaced.wait(1.0)
            return [first, self.name]

    holder = attempt(Loader(TwoSteps("model 1"), TwoSteps("model 2")))
    holder.predict_proba("fast")

    def replace():
        under_way.wait(2.0)
        holder.reload()
        replaced.set()

    answer, _ = side_by_side(lambda: holder.predict_proba("slow"), replace)
    case.equal(
        given="a reload in the middle of a prediction of two steps: who did each step",
        expected=["model 1", "model 1"],
        got=answer,
    )


@exercise.check(Stage.STRESS, hint="one-at-a-time")
def the_latest_reload_wins(attempt, case):
    """of two reloads that overlap, the one that began later decides"""
    first_loads, second_ended = threading.Event(), threading.Event()

    def slowly():
        first_loads.set()
        second_ended.wait(0.5)  # holders that load one at a time let this time pass

    holder = attempt(SlowLoader("model 1", "model 2", "model 3", during={2: slowly}))
    holder.predict_proba([[0.0]])

    def second():
        first_loads.wait(2.0)
        holder.reload()
        second_ended.set()

    side_by_side(holder.reload, second)
    case.equal(
        given="a slow reload to model 2, during which a fast one to model 3 begins",
        expected="model 3",
        got=holder.predict_proba([[0.0]]),
    )


@exercise.solution
class ModelHolder:
    def __init__(self, loader):
        self._loader = loader
        self._model = None
        self._loading = threading.Lock()

    def predict_proba(self, X):
        model = self._model
        if model is None:
            with self._loading:
                if self._model is None:  # a thread before us may have loaded it
                    self._model = self._loader()
                model = self._model
        return model.predict_proba(X)

    def reload(self):
        with self._loading:
            self._model = self._loader()  # when the loader raises, the old model stays


@exercise.another_way
class HolderOfFutures:
    """A different shape: whoever comes first leaves a future, and loads are numbered."""

    def __init__(self, loader):
        self.loader, self.lock = loader, threading.Lock()
        self.current, self.current_number, self.begun = None, 0, 0

    def predict_proba(self, X):
        with self.lock:
            future, first = self.current, self.current is None
            if first:
                self.begun += 1
                future = self.current = Future()
                self.current_number = self.begun
        if first:
            self._fulfil(future)
        return future.result().predict_proba(X)

    def _fulfil(self, future):
        try:
            future.set_result(self.loader())
        except Exception as error:
            with self.lock:
                if self.current is future:
                    self.current = None
            future.set_exception(error)

    def reload(self):
        with self.lock:
            self.begun += 1
            number = self.begun
        loaded = Future()
        loaded.set_result(self.loader())
        with self.lock:
            if number > self.current_number:
                self.current, self.current_number = loaded, number


exercise.another_way(companion.serving.ModelHolder)  # it keeps more promises, and these too


@exercise.wrong("one-load")
class ReceivedPattern(ModelHolder):
    """The received answer's bad version: it loads in every call."""

    def predict_proba(self, X):
        return self._loader().predict_proba(X)


@exercise.wrong("lazy")
class LoadsGlobally(ModelHolder):
    """The received answer's good version: it loads where it is made, that is, at import."""

    def __init__(self, loader):
        super().__init__(loader)
        self._model = loader()


@exercise.wrong("own-model")
class ModelInAGlobal(ModelHolder):
    """Keeps the model in a global, as the received answer does: all holders share one."""

    kept: ClassVar = {}

    @property
    def _model(self):
        return self.kept.get("model")

    @_model.setter
    def _model(self, model):
        if model is not None:
            self.kept["model"] = model


@exercise.wrong("predict")
class Predicts(ModelHolder):
    """Calls predict, as the received answer does, and gets labels in place of probabilities."""

    def predict_proba(self, X):
        super().predict_proba(X)
        return self._model.predict(X)


@exercise.wrong("reload")
class CachedLoader:
    """lru_cache around the loader: reload finds the old model in the cache."""

    def __init__(self, loader):
        self.load = functools.lru_cache(loader)

    def predict_proba(self, X):
        return self.load().predict_proba(X)

    def reload(self):
        self.load()


@exercise.wrong("failed-reload")
class ClearedCache(CachedLoader):
    """lru_cache with cache_clear: the old model is gone before the new one is there."""

    def reload(self):
        self.load.cache_clear()
        self.load()


@exercise.wrong("failed-reload")
class ReloadsLater(ModelHolder):
    """Only forgets the model, so a broken file hits whoever scores next."""

    def reload(self):
        self._model = None


@exercise.wrong("failed-reload")
class SwallowsTheError(ModelHolder):
    """Keeps the old model and tells nobody, so the deployment looks done."""

    def reload(self):
        with contextlib.suppress(Exception):
            super().reload()


@exercise.wrong("retry")
class CachesTheFailure(ModelHolder):
    """Notes that it has loaded before it has: after one failure there is never a model."""

    def __init__(self, loader):
        super().__init__(loader)
        self.loaded = False

    def predict_proba(self, X):
        with self._loading:
            if not self.loaded and self._model is None:
                self.loaded = True
                self._model = self._loader()
        return self._model.predict_proba(X)


@exercise.wrong("race")
class NoLock(ModelHolder):
    """Looks and loads without a lock: every thread that looks in time loads."""

    def predict_proba(self, X):
        if self._model is None:
            self._model = self._loader()
        return self._model.predict_proba(X)


@exercise.wrong("race")
class NeverLooksAgain(ModelHolder):
    """Looks before the lock and not after it: the threads load one after the other."""

    def predict_proba(self, X):
        if self._model is None:
            with self._loading:
                self._model = self._loader()
        return self._model.predict_proba(X)


@exercise.wrong("lock-free-predict")
class LockedWhilePredicting(ModelHolder):
    """Holds the lock while the model predicts: one request at a time."""

    def predict_proba(self, X):
        with self._loading:
            if self._model is None:
                self._model = self._loader()
            return self._model.predict_proba(X)


@exercise.wrong("swap")
class LockedWhileLoading(ModelHolder):
    """Takes the loading lock to read the model: everybody waits for the reload."""

    def predict_proba(self, X):
        with self._loading:
            if self._model is None:
                self._model = self._loader()
            model = self._model
        return model.predict_proba(X)


@exercise.wrong("swap")
class SwapsBeforeLoaded(ModelHolder):
    """Takes the old model away first and puts it back on failure: in between there is none."""

    def reload(self):
        with self._loading:
            old, self._model = self._model, None
            try:
                self._model = self._loader()
            except Exception:
                self._model = old
                raise


@exercise.wrong("in-place")
class UpdatesInPlace(ModelHolder):
    """Copies the new model's contents into the old object, under a running prediction."""

    def reload(self):
        with self._loading:
            new = self._loader()
            if self._model is None:
                self._model = new
            else:
                vars(self._model).update(vars(new))


@exercise.wrong("one-at-a-time")
class ReloadsOverlap(ModelHolder):
    """Reloads without a lock: the slower one wins, with the older model."""

    def reload(self):
        self._model = self._loader()
