"""The application as the environment describes it: `uvicorn --factory companion.serving.api:…`.

A process that a server, a container or a process manager starts gets its settings as variables
(*The Twelve-Factor App*, III). They are read once, here, into `Settings`; nothing else looks at the
environment. What cannot work is said at once and by the variable's name.

| variable | what |
|---|---|
| `COMPANION_MODEL` | folder of an artefact, or an ONNX file |
| `COMPANION_MODEL_SHA256` | the file's checksum (of a folder it is in the folder) |
| `COMPANION_HISTORY` | Parquet of past transactions, to begin with |
| `COMPANION_HISTORY_ENDS` | `now`: moved in time so that it ends now |
| `COMPANION_FEATURES_URL`, `COMPANION_FEATURES_FOLDER` | feature store in place of the history |
| `COMPANION_KEYS` | file of API keys; without it nobody is asked for one |
| `COMPANION_RATE`, `COMPANION_BURST` | what a key may ask: per second, at once |
| `COMPANION_LIMITS_URL` | `redis://…` where several processes count together |
| `COMPANION_CACHE_URL` | `memory:` or `redis://…`, for models slower than a look-up |
| `COMPANION_JOBS_URL` | store of batch jobs; without it there are none |
| `COMPANION_CELERY_URL` | `redis://…` of Celery workers, to be told of new jobs |
| `COMPANION_UPLOADS` | folder of uploaded files, where the store is a server |
| `COMPANION_TRUSTED_PROXIES` | networks whose `X-Forwarded-For` is believed, by commas |
| `COMPANION_MAX_AGE` | seconds after which features count as too old |
| `COMPANION_ACCESS_LOG` | `1`: one JSON line for each request, on standard output |

Traces follow OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and so on).
"""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from companion.features.defaults import windows_of
from companion.features.online import OnlineWindows
from companion.models.artefact_errors import ArtefactError
from companion.models.artefacts import load_artefact
from companion.resilience.cache import PredictionCache, open_cache_home
from companion.resilience.limiting import Limit
from companion.resilience.limiting.redis_async_store import AsyncRedisStore
from companion.serving.api.app import ScoringApp, create_app
from companion.serving.api.service import Service
from companion.serving.holder import ModelHolder
from companion.serving.jobs import Job, Jobs, open_jobs
from companion.serving.keys import KeyRing
from companion.serving.preparing import FRAUD_RATE, History
from companion.serving.proxies import TrustedProxies
from companion.serving.scorer import (
    FeatureSource,
    Scorer,
    ServedModel,
    StateFeatures,
    hold_artefact,
    hold_file,
)
from companion.serving.tracing import AccessLines, json_logging
from companion.serving.tracing.telemetry import telemetry_from_environment

_CACHE_SECONDS = 60.0
_JOBS_SECONDS = 2.0
"""How long somebody who asks for a job waits for the store before it is a 503."""
_BASE_RATE = 0.01
_USUAL_MAX_AGE = 86_400.0


class SettingError(ValueError):
    """The variable `name` is missing or cannot be meant; the message says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name


@dataclass(frozen=True)
class Settings:
    """What the environment says; see the table of this module. `limit` is None without a rate."""

    model: Path
    model_sha256: str | None = None
    history: Path | None = None
    history_ends_now: bool = False
    features_url: str | None = None
    features_folder: Path | None = None
    keys: Path | None = None
    limit: Limit | None = None
    limits_url: str | None = None
    cache_url: str | None = None
    jobs_url: str | None = None
    celery_url: str | None = None
    uploads: Path | None = None
    proxies: tuple[str, ...] = ()
    max_age: float = _USUAL_MAX_AGE
    access_log: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Read them; raises `SettingError`."""
        given = {
            name.removeprefix("COMPANION_"): value
            for name, value in environment.items()
            if name.startswith("COMPANION_") and value
        }
        if "MODEL" not in given:
            raise SettingError("COMPANION_MODEL", "names the model to serve, and is not set")
        model = Path(given["MODEL"])
        if not model.is_dir() and "MODEL_SHA256" not in given:
            raise SettingError("COMPANION_MODEL_SHA256", f"is needed, since {model} is no folder")
        rate = _number(given, "RATE", None)
        burst = _number(given, "BURST", rate)
        proxies = tuple(filter(None, given.get("TRUSTED_PROXIES", "").replace(" ", "").split(",")))
        return cls(
            model=model,
            model_sha256=given.get("MODEL_SHA256"),
            history=_path(given, "HISTORY"),
            history_ends_now=given.get("HISTORY_ENDS") == "now",
            features_url=given.get("FEATURES_URL"),
            features_folder=_path(given, "FEATURES_FOLDER"),
            keys=_path(given, "KEYS"),
            limit=Limit(rate, max(1.0, burst or rate)) if rate is not None else None,
            limits_url=given.get("LIMITS_URL"),
            cache_url=given.get("CACHE_URL"),
            jobs_url=given.get("JOBS_URL"),
            celery_url=given.get("CELERY_URL"),
            uploads=_path(given, "UPLOADS"),
            proxies=proxies,
            max_age=_number(given, "MAX_AGE", None) or _USUAL_MAX_AGE,
            access_log=given.get("ACCESS_LOG") == "1",
        )


def app_from_environment() -> ScoringApp:
    """For `uvicorn --factory companion.serving.api:app_from_environment`; raises `SettingError`.

    The process is the application's alone, so what it logs are JSON lines.
    """
    json_logging(level="WARNING")
    return create_app(service_of(Settings.of(os.environ)))


def keep_what_is_there() -> None:
    """Take everything that exists out of the garbage collector's sight.

    For a process that is the application's alone. The history of all customers and the libraries
    stay to the end; walking through them again and again stops all requests, each time for a tenth
    of a second and longer.
    """
    gc.collect()
    gc.freeze()


def service_of(
    settings: Settings, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Service:
    """All parts of the service. `clock` gives the time now, aware of its zone.

    Raises what opening the parts raises: `KeyFileError`, `OSError`, and so on. A model that cannot
    be loaded is no error here: the service starts, and says that it is not ready.
    """
    background, state = None, OnlineWindows(windows_of())
    if settings.history is not None:
        ends = clock() if settings.history_ends_now else None
        history = History.of(pd.read_parquet(settings.history), ends=ends)
        background, state = history.background, history.state
    holder, base_rate = _model(settings)
    source: FeatureSource = StateFeatures(state, max_age=settings.max_age)
    if settings.features_url is not None:
        source = _stored(settings, settings.features_url)
    scorer = Scorer(
        holder,
        source,
        base_rate=base_rate,
        cache=_cache(settings, holder),
    )
    return Service(
        scorer,
        keys=KeyRing.load(settings.keys) if settings.keys else None,
        limit=settings.limit,
        limit_store=_limit_store(settings),
        proxies=_proxies(settings),
        jobs=_jobs(settings),
        on_accepted=_announcer(settings),
        background=background,
        on_loaded=keep_what_is_there,
        traces=telemetry_from_environment(),
        access=AccessLines(sys.stdout) if settings.access_log else None,
    )


def _model(settings: Settings) -> tuple[ModelHolder[ServedModel], float]:
    if not settings.model.is_dir():
        return hold_file(settings.model, sha256=settings.model_sha256 or ""), _BASE_RATE
    try:
        told = load_artefact(settings.model).metadata.training.metrics
    except ArtefactError:
        told = {}  # the holder will say what is wrong with it
    return hold_artefact(settings.model), float(told.get(FRAUD_RATE, _BASE_RATE))


def _stored(settings: Settings, url: str) -> FeatureSource:
    from companion.features.store import FeatureStore
    from companion.features.store.homes import open_home
    from companion.serving.scorer.stored import StoredFeatures

    if settings.features_folder is None:
        raise SettingError("COMPANION_FEATURES_FOLDER", "is the store's folder, and is not set")
    try:
        home = open_home(url)
    except ValueError as error:
        raise SettingError("COMPANION_FEATURES_URL", str(error)) from error
    store = FeatureStore(settings.features_folder, home=home)
    return StoredFeatures(store, max_age=settings.max_age)


def _cache(settings: Settings, holder: ModelHolder[ServedModel]) -> PredictionCache | None:
    if settings.cache_url is None:
        return None
    try:
        home = open_cache_home(settings.cache_url)
    except ValueError as error:
        raise SettingError("COMPANION_CACHE_URL", str(error)) from error
    return PredictionCache(home, version=holder.status().name, ttl=_CACHE_SECONDS)


def _limit_store(settings: Settings) -> AsyncRedisStore | None:
    if settings.limits_url is None:
        return None
    try:
        return AsyncRedisStore(settings.limits_url)
    except ValueError as error:
        raise SettingError("COMPANION_LIMITS_URL", str(error)) from error


def _proxies(settings: Settings) -> TrustedProxies:
    try:
        return TrustedProxies(settings.proxies)
    except ValueError as error:
        raise SettingError("COMPANION_TRUSTED_PROXIES", str(error)) from error


def _jobs(settings: Settings) -> Jobs | None:
    if settings.jobs_url is None:
        return None
    try:
        return open_jobs(settings.jobs_url, uploads=settings.uploads, timeout=_JOBS_SECONDS)
    except ValueError as error:
        raise SettingError("COMPANION_JOBS_URL", str(error)) from error


def _announcer(settings: Settings) -> Callable[[Job], None]:
    if settings.celery_url is None:
        return lambda job: None  # workers look into the store by themselves
    from companion.serving.jobs.celery import announcer, celery_app

    return announcer(celery_app(settings.celery_url))


def _path(given: Mapping[str, str], name: str) -> Path | None:
    return Path(given[name]) if name in given else None


def _number(given: Mapping[str, str], name: str, default: float | None) -> float | None:
    if name not in given:
        return default
    try:
        number = float(given[name])
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise SettingError(f"COMPANION_{name}", f"is a number above 0; got {given[name]!r}")
    return number
