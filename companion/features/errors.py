"""The named ways in which saving or loading a feature-set version can fail."""

from collections.abc import Mapping, Sequence
from pathlib import Path


class FeatureVersionError(Exception):
    """Base of everything that `FeatureVersions` raises by itself."""


class NoVersionsError(FeatureVersionError, LookupError):
    """Nothing has been saved under `root` yet."""

    def __init__(self, root: Path) -> None:
        super().__init__(f"no version has been saved under {root} yet")
        self.root = root


class VersionNotFoundError(FeatureVersionError, LookupError):
    """There is no version `version`; `near` holds the names that look most like it."""

    def __init__(self, version: str, near: Sequence[str]) -> None:
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        super().__init__(f"there is no version {version!r}{hint}")
        self.version = version
        self.near = tuple(near)


class AliasNotFoundError(FeatureVersionError, LookupError):
    """No alias `alias` has been set; `known` holds those that have."""

    def __init__(self, alias: str, known: Sequence[str]) -> None:
        super().__init__(f"no alias {alias!r} is set; known: {', '.join(known) or 'none'}")
        self.alias = alias
        self.known = tuple(known)


class VersionExistsError(FeatureVersionError, FileExistsError):
    """`version` has been published before, and a version never changes."""

    def __init__(self, version: str) -> None:
        super().__init__(f"version {version!r} exists, and a version never changes; use a new name")
        self.version = version


class InvalidVersionNameError(FeatureVersionError, ValueError):
    """`name` cannot be a version or an alias (it would escape the folder, hide, or be
    ambiguous)."""

    def __init__(self, name: object) -> None:
        super().__init__(
            f"{name!r} is no name for a version or an alias: 1 to 64 letters, digits, '.', '_' and "
            "'-', the first a letter or digit, and not 'latest', which is computed"
        )
        self.name = name


class CorruptVersionError(FeatureVersionError):
    """What is stored under `version` is not what was saved; nothing of it was used."""

    def __init__(self, version: str, reason: str) -> None:
        super().__init__(
            f"version {version!r} is damaged: {reason}; move its folder away or restore it from a "
            "backup"
        )
        self.version = version
        self.reason = reason


class InvalidFrameError(FeatureVersionError, ValueError):
    """The frame cannot be saved so that it comes back the same; `columns` names the culprits."""

    def __init__(self, reason: str, columns: Sequence[object] = ()) -> None:
        named = f": {', '.join(map(repr, columns))}" if columns else ""
        super().__init__(f"{reason}{named}")
        self.columns = tuple(columns)


class SchemaMismatchError(FeatureVersionError):
    """The stored columns are not the expected ones.

    `missing` and `extra` are names; `changed` maps a name to (expected, found) dtypes;
    `reordered` says that the names are the same in another order, which a model that reads by
    position would not notice.
    """

    def __init__(
        self,
        version: str,
        *,
        missing: Sequence[str],
        extra: Sequence[str],
        changed: Mapping[str, tuple[str, str]],
        reordered: bool,
    ) -> None:
        parts = []
        if missing:
            parts.append(f"missing {', '.join(missing)}")
        if extra:
            parts.append(f"not expected {', '.join(extra)}")
        for name, (expected, found) in changed.items():
            parts.append(f"{name} is {found} instead of {expected}")
        if reordered:
            parts.append("the columns stand in another order")
        super().__init__(f"version {version!r} has another schema: {'; '.join(parts)}")
        self.version = version
        self.missing = tuple(missing)
        self.extra = tuple(extra)
        self.changed = dict(changed)
        self.reordered = reordered


class StoreBusyError(FeatureVersionError, TimeoutError):
    """Another process kept the store's lock for all of `waited_seconds`."""

    def __init__(self, root: Path, waited_seconds: float) -> None:
        super().__init__(f"another process kept {root} locked for {waited_seconds:g} s")
        self.root = root
        self.waited_seconds = waited_seconds
