"""What is known about one version, and its form on disk.

The file holds a checksum over its own content as well: one flipped digit in `created_at` would
otherwise change, without any error, which version is the latest.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from companion.features.errors import CorruptVersionError, InvalidVersionNameError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = "latest"


@dataclass(frozen=True)
class VersionMeta:
    """One immutable version of a feature set.

    `created_at` is UTC and greater than that of every version published before it. `schema` maps
    each column to its dtype, in order; `labels` and `ids` name those that no model may be trained
    on. `sha256` is that of the Parquet bytes, so two versions with equal content have it in
    common. `parent` is the version that this one was made from; `definition_sha256` is the hash
    of the code or query that made it, since a version of the data is only half of the story.
    """

    version: str
    created_at: datetime
    rows: int
    schema: dict[str, str]
    labels: tuple[str, ...]
    ids: tuple[str, ...]
    sha256: str
    parent: str | None = None
    definition_sha256: str | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that are neither labels nor ids, in order."""
        return tuple(name for name in self.schema if name not in {*self.labels, *self.ids})

    @property
    def n_features(self) -> int:
        """How many columns a model may be trained on: labels and ids are not among them."""
        return len(self.features)


def checked_name(name: object) -> str:
    """`name`, if it can name a version or an alias; raises `InvalidVersionNameError` if not."""
    if not isinstance(name, str) or name == _RESERVED or not _NAME.fullmatch(name):
        raise InvalidVersionNameError(name)
    return name


def automatic_name(created_at: datetime, sha256: str) -> str:
    """`20261123T090751.123456Z-1f3a9c02`: sorts by creation, tells contents apart at a glance."""
    return f"{created_at:%Y%m%dT%H%M%S.%f}Z-{sha256[:8]}"


def to_json(meta: VersionMeta) -> str:
    """The text of `meta.json`."""
    content = asdict(meta) | {"created_at": meta.created_at.isoformat(timespec="microseconds")}
    return json.dumps({"metadata": content, "sha256": _digest(content)}, indent=2) + "\n"


def from_json(version: str, text: str) -> VersionMeta:
    """The metadata in `text`, found in the folder `version`; raises `CorruptVersionError`."""
    try:
        document = json.loads(text)
        content = document["metadata"]
        intact = document["sha256"] == _digest(content)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptVersionError(version, f"meta.json is no metadata file ({error})") from error
    if not intact:
        raise CorruptVersionError(version, "meta.json does not match its own checksum")
    if content["version"] != version:
        raise CorruptVersionError(version, f"meta.json belongs to version {content['version']!r}")
    return VersionMeta(
        **content
        | {
            "created_at": datetime.fromisoformat(content["created_at"]).astimezone(UTC),
            "labels": tuple(content["labels"]),
            "ids": tuple(content["ids"]),
        }
    )


def _digest(content: object) -> str:
    # Order is kept on purpose: that of `schema` is part of what is protected.
    canonical = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
