"""Feature sets: immutable versions of them, named, checked when loaded, and never half written.

`FeatureVersions` keeps the versions; `FeatureSet` and `VersionMeta` are what it gives back; the
errors say by name what was wrong.
"""

from companion.features.defaults import (
    FEATURES,
    available_features,
    feature_matrix,
    feature_table,
    online_features,
)
from companion.features.definitions import WindowFeature
from companion.features.errors import (
    AliasNotFoundError,
    CorruptVersionError,
    FeatureVersionError,
    InvalidFrameError,
    InvalidVersionNameError,
    NoVersionsError,
    SchemaMismatchError,
    StoreBusyError,
    VersionExistsError,
    VersionNotFoundError,
)
from companion.features.frames import schema_of
from companion.features.metadata import VersionMeta
from companion.features.store import FeatureStore, FeatureView
from companion.features.versions import FeatureSet, FeatureVersions

__all__ = [
    "FEATURES",
    "AliasNotFoundError",
    "CorruptVersionError",
    "FeatureSet",
    "FeatureStore",
    "FeatureVersionError",
    "FeatureVersions",
    "FeatureView",
    "InvalidFrameError",
    "InvalidVersionNameError",
    "NoVersionsError",
    "SchemaMismatchError",
    "StoreBusyError",
    "VersionExistsError",
    "VersionMeta",
    "VersionNotFoundError",
    "WindowFeature",
    "available_features",
    "feature_matrix",
    "feature_table",
    "online_features",
    "schema_of",
]
