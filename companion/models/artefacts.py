"""A model as a folder that appears whole, never changes, and is verified before it is read.

    <folder>/model.onnx      what predicts; data, not code
    <folder>/metadata.json   where it comes from
    <folder>/SHA256SUMS      what the two must hash to; `sha256sum -c SHA256SUMS` reads it too

The folder is written under a name that nobody looks at and renamed when it is complete, so a
process that is killed leaves either the artefact or nothing of that name (at most a folder
`.tmp-…` beside it, which may be deleted). Loading hashes the very bytes that it then parses, and
parses nothing of a folder in which one of them is wrong. A checksum protects against accidents:
whoever can write the folder can write the sums.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from companion.models.artefact_errors import (
    ArtefactExistsError,
    ArtefactNotFoundError,
    CorruptArtefactError,
)
from companion.models.artefact_metadata import (
    ArtefactMetadata,
    TrainingRecord,
    describe,
    from_json,
    to_json,
)
from companion.models.onnx.errors import InvalidModelError
from companion.models.onnx.model import OnnxModel
from companion.storage import AlreadyExistsError, MissingFolderError, publish_folder
from companion.storage.atomic import temporary_path

_MODEL, _METADATA, _SUMS = "model.onnx", "metadata.json", "SHA256SUMS"
_FILES = (_MODEL, _METADATA, _SUMS)


@dataclass(frozen=True)
class Artefact:
    """A loaded artefact: its `model`, its `metadata`, and the SHA-256 of the model's file."""

    model: OnnxModel
    metadata: ArtefactMetadata
    sha256: str


def save_artefact(
    folder: str | os.PathLike[str],
    model: Any,
    X: object,
    metadata: TrainingRecord,
    *,
    tolerance: float = 1e-6,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Artefact:
    """Export `model`, prove it on the rows `X` (see `export_onnx`), and publish it as `folder`.

    `clock` gives the time of creation, aware of its zone. Gives what `load_artefact` would.

    Raises `ArtefactExistsError` where anything is under that name, `MissingFolderError` where its
    parent is missing, `InvalidMetadataError`, and whatever `export_onnx` raises. Whatever is
    raised, nothing appears.
    """
    final = Path(folder)
    if os.path.lexists(final):
        raise ArtefactExistsError(final)
    if not final.parent.is_dir():
        raise MissingFolderError(final.parent)
    from companion.models.onnx.export import export_onnx  # who only loads need not wait for it

    data = export_onnx(model, X, tolerance=tolerance)
    loaded = OnnxModel(data)
    described = describe(metadata, loaded.features, clock())
    files = {_MODEL: data, _METADATA: to_json(described).encode()}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[_SUMS] = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
    _publish(final, files)
    return Artefact(loaded, described, sums[_MODEL])


def load_artefact(folder: str | os.PathLike[str], *, threads: int = 1) -> Artefact:
    """The artefact in `folder`, all its files verified before any is parsed.

    `threads` is how many threads one prediction may use.

    Raises `ArtefactNotFoundError`, and `CorruptArtefactError` naming the file that is missing,
    does not belong there, is no regular file, does not match its checksum, or cannot be read as
    what it is.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ArtefactNotFoundError(place)
    _check_names(place)
    files = {name: (place / name).read_bytes() for name in _FILES}
    sums = _checksums(place, files[_SUMS])
    for name, expected in sums.items():
        found = hashlib.sha256(files[name]).hexdigest()
        if found != expected:
            raise CorruptArtefactError(
                place, name, f"has the checksum {found[:12]}… instead of {expected[:12]}…"
            )
    try:
        metadata = from_json(files[_METADATA].decode())
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptArtefactError(place, _METADATA, f"is no metadata ({error!r})") from error
    try:
        model = OnnxModel(files[_MODEL], threads=threads)
    except InvalidModelError as error:
        raise CorruptArtefactError(place, _MODEL, f"is no model ({error})") from error
    return Artefact(model, metadata, sums[_MODEL])


def _publish(final: Path, files: Mapping[str, bytes]) -> None:
    staged = temporary_path(final.parent)
    staged.mkdir()
    try:
        for name, content in files.items():
            (staged / name).write_bytes(content)
        publish_folder(staged, final)
    except BaseException as error:
        # Best effort, so that the first error is the one reported.
        shutil.rmtree(staged, ignore_errors=True)
        if isinstance(error, AlreadyExistsError):
            raise ArtefactExistsError(final) from error
        raise


def _check_names(folder: Path) -> None:
    with os.scandir(folder) as entries:
        found = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    for name in _FILES:
        if name not in found:
            raise CorruptArtefactError(folder, name, "is missing")
    for name, regular in sorted(found.items()):
        if name not in _FILES:
            raise CorruptArtefactError(folder, name, "does not belong to an artefact")
        if not regular:
            raise CorruptArtefactError(folder, name, "is no regular file")


def _checksums(folder: Path, content: bytes) -> dict[str, str]:
    lines = [line.partition("  ") for line in content.decode(errors="replace").splitlines()]
    sums = {name: digest for digest, _, name in lines}
    if tuple(sums) != (_MODEL, _METADATA) or len(lines) != len(sums):
        raise CorruptArtefactError(
            folder, _SUMS, f"does not hold the checksums of {_MODEL} and {_METADATA}"
        )
    return sums
