"""Versions of a feature set that never change, and that a crash cannot leave half made.

A version is a folder, `<root>/<version>/{data.parquet,meta.json}`. It is written under a name
that no reader looks at, synced, and renamed: one step, after which it is there, whole, for good.
The idea is that of object stores and of Git (content is named and never edited, a branch is a
pointer that moves), and of table formats such as Iceberg and Delta, whose readers see a snapshot
or the next one.

Decisions that a user meets:

- *Latest* is by creation, recorded in the metadata under the store's lock and strictly
  increasing, so a clock that jumps back changes nothing. Neither names (`v9` > `v10`) nor file
  times (a restore touches them) take part.
- Saving the same content twice makes two versions with one `sha256`: a save is an event with a time
  and a parent, and three runs of a job are three versions, within one second too.
- An alias (`production`) is a pointer, moved in one step. To roll back is to move it; load it as
  `"@production"`, so that no alias can ever be mistaken for a version.

Readers take no lock. Writers take one, briefly: encoding happens before. Whoever holds it knows
that every unfinished folder belongs to a dead writer, and so what may be collected. The lock is
the operating system's and ends with its process.
"""

import difflib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from companion.features.errors import (
    AliasNotFoundError,
    CorruptVersionError,
    NoVersionsError,
    StoreBusyError,
    VersionExistsError,
    VersionNotFoundError,
)
from companion.features.frames import check_frame, check_schema, decode, encode, schema_of
from companion.features.metadata import (
    VersionMeta,
    automatic_name,
    checked_name,
    from_json,
    to_json,
)
from companion.storage import AlreadyExistsError, publish_folder, write_text
from companion.storage.atomic import TEMPORARY_PREFIX, temporary_path

_DATA = "data.parquet"
_META = "meta.json"
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class FeatureSet:
    """One loaded version: `frame` (rows × columns, exactly as saved) and its `meta`."""

    frame: pd.DataFrame
    meta: VersionMeta


class FeatureVersions:
    """The versions under the folder `root`, which the first save makes.

    Safe with any number of reading and writing threads and processes of one machine. `clock`
    gives the time of a save (aware of its zone); `lock_timeout` is how many seconds a save waits
    for another.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        lock_timeout: float = 30.0,
    ) -> None:
        self.root = Path(root)
        self._clock = clock
        self._lock_timeout = lock_timeout

    def save(
        self,
        frame: pd.DataFrame,
        *,
        labels: Sequence[str] = (),
        ids: Sequence[str] = (),
        version: str | None = None,
        parent: str | None = None,
        definition: str | None = None,
    ) -> VersionMeta:
        """Publish `frame` as a new version and return its metadata.

        Without `version` the name is the time and the content's hash. `labels` and `ids` name the
        columns that are no features. `parent` is whatever `load` understands. `definition` is the
        code or query that made the features; only its hash is kept.

        Raises `InvalidVersionNameError`, `InvalidFrameError`, `VersionExistsError`,
        `VersionNotFoundError` (the parent), `StoreBusyError`. Whatever is raised, no reader sees
        anything of the attempt.
        """
        if version is not None and self._folder(checked_name(version)).exists():
            raise VersionExistsError(version)
        check_frame(frame, labels, ids)
        ancestor = None if parent is None else self.resolve(parent)
        data = encode(frame)
        sha256 = hashlib.sha256(data).hexdigest()
        with self._locked():
            created_at = self._next_creation_time()
            meta = VersionMeta(
                version=version or automatic_name(created_at, sha256),
                created_at=created_at,
                rows=len(frame),
                schema=schema_of(frame),
                labels=tuple(labels),
                ids=tuple(ids),
                sha256=sha256,
                parent=ancestor,
                definition_sha256=None
                if definition is None
                else hashlib.sha256(definition.encode()).hexdigest(),
            )
            self._publish(meta, data)
        return meta

    def load(
        self, version: str = "latest", *, expect_schema: Mapping[str, str] | None = None
    ) -> FeatureSet:
        """The feature set `version`: a name, `"latest"`, or `"@alias"`.

        The checksum is verified before a byte is parsed. `expect_schema` (column → dtype, as
        `schema_of` or `VersionMeta.schema` give it) must then agree in names, dtypes and order.

        Raises `NoVersionsError`, `VersionNotFoundError`, `AliasNotFoundError`,
        `InvalidVersionNameError`, `CorruptVersionError`, `SchemaMismatchError`.
        """
        meta = self.meta(version)
        if expect_schema is not None:
            check_schema(meta.version, expect_schema, meta.schema)
        data = self._read(meta.version, _DATA)
        if hashlib.sha256(data).hexdigest() != meta.sha256:
            raise CorruptVersionError(meta.version, f"{_DATA} does not match its checksum")
        return FeatureSet(frame=decode(data), meta=meta)

    def meta(self, version: str = "latest") -> VersionMeta:
        """The metadata of `version`, without reading its data; raises as `load` does."""
        if version == "latest":
            return self.latest()
        name = self.resolve(version)
        return from_json(name, self._read(name, _META).decode(errors="replace"))

    def latest(self) -> VersionMeta:
        """The version created last; raises `NoVersionsError`."""
        newest_first = self.versions()
        if not newest_first:
            raise NoVersionsError(self.root)
        return newest_first[0]

    def versions(self) -> list[VersionMeta]:
        """The metadata of all versions, newest first.

        Raises `CorruptVersionError` where one cannot be read: which one is the latest is then not
        known, and an older one must not pass for it.
        """
        metas = [self.meta(name) for name in self._names()]
        return sorted(metas, key=lambda meta: (meta.created_at, meta.version), reverse=True)

    def resolve(self, version: str) -> str:
        """The name behind a name, `"latest"`, or `"@alias"`; raises as `load` does."""
        if version == "latest":
            return self.latest().version
        is_alias = isinstance(version, str) and version.startswith("@")
        name = self.alias(version[1:]) if is_alias else checked_name(version)
        if not self._is_version(self._folder(name)):
            raise VersionNotFoundError(name, difflib.get_close_matches(name, self._names()))
        return name

    def set_alias(self, alias: str, version: str) -> str:
        """Point `alias` at `version` in one step and return the version's name.

        `version` is whatever `load` understands, and must exist. Moving an alias back is a
        rollback.
        """
        target = self._alias_file(alias)
        name = self.resolve(version)
        with self._locked():
            target.parent.mkdir(exist_ok=True)
            write_text(target, f"{name}\n")
        return name

    def alias(self, alias: str) -> str:
        """The version that `alias` points at; raises `AliasNotFoundError`."""
        try:
            return checked_name(self._alias_file(alias).read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            raise AliasNotFoundError(alias, sorted(self.aliases())) from None

    def aliases(self) -> dict[str, str]:
        """Alias → version, for all that are set."""
        folder = self.root / ".aliases"
        if not folder.is_dir():
            return {}
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        return {name: self.alias(name) for name in names}

    def collect_garbage(self) -> list[Path]:
        """Delete what killed writers left behind and return its paths; no version is touched."""
        if not self.root.is_dir():
            return []
        with self._locked():
            left = [
                path
                for folder in (self.root, self.root / ".aliases")
                for path in folder.glob(f"{TEMPORARY_PREFIX}*")
            ]
            for path in left:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return left

    def _publish(self, meta: VersionMeta, data: bytes) -> None:
        staged = temporary_path(self.root)
        staged.mkdir()
        try:
            (staged / _DATA).write_bytes(data)
            (staged / _META).write_text(to_json(meta), encoding="utf-8")
            publish_folder(staged, self._folder(meta.version))
        except BaseException as error:
            # Best effort, so that the first error is the one reported; the rest is garbage to
            # collect.
            shutil.rmtree(staged, ignore_errors=True)
            if isinstance(error, AlreadyExistsError):
                raise VersionExistsError(meta.version) from error
            raise

    def _next_creation_time(self) -> datetime:
        now = self._clock()
        if now.tzinfo is None:
            raise ValueError("the clock must give a time that knows its zone; a naive one repeats")
        try:
            return max(now.astimezone(UTC), self.latest().created_at + _TICK)
        except NoVersionsError:
            return now.astimezone(UTC)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / ".lock", timeout=self._lock_timeout, poll_interval=0.01)
        try:
            lock.acquire()
        except Timeout as error:
            raise StoreBusyError(self.root, self._lock_timeout) from error
        try:
            yield
        finally:
            lock.release()

    def _names(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return [path.name for path in self.root.iterdir() if self._is_version(path)]

    def _is_version(self, folder: Path) -> bool:
        # One of the two files is enough: a version that lost the other must be reported, not
        # hidden.
        return not folder.name.startswith(".") and any(
            (folder / name).exists() for name in (_DATA, _META)
        )

    def _read(self, version: str, name: str) -> bytes:
        try:
            return (self._folder(version) / name).read_bytes()
        except FileNotFoundError:
            raise CorruptVersionError(version, f"{name} is missing") from None

    def _folder(self, version: str) -> Path:
        return self.root / version

    def _alias_file(self, alias: str) -> Path:
        return self.root / ".aliases" / checked_name(alias)
