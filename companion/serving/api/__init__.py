"""The fraud-scoring service over HTTP: `create_app(Service(scorer, …))`."""

from companion.serving.api.app import ScoringApp, create_app
from companion.serving.api.service import Deprecation, Service

__all__ = ["Deprecation", "ScoringApp", "Service", "create_app"]
