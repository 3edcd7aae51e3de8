"""The fraud-scoring service over HTTP.

`create_app(Service(scorer, …))` where the parts are made by hand, `app_from_environment` where the
environment names them: `uvicorn --factory companion.serving.api:app_from_environment`.
"""

from companion.serving.api.app import ScoringApp, create_app
from companion.serving.api.environment import (
    SettingError,
    Settings,
    app_from_environment,
    service_of,
)
from companion.serving.api.service import Deprecation, Service

__all__ = [
    "Deprecation",
    "ScoringApp",
    "Service",
    "SettingError",
    "Settings",
    "app_from_environment",
    "create_app",
    "service_of",
]
