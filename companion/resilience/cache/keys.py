"""What a cached score is kept under: the model's version, and a digest of canonical features.

A score belongs to one model and one set of inputs, so the key has to tell both apart, and it has to
say "equal" wherever Python says it: 1, 1.0 and True are one value, as are 0.0 and -0.0, and the
order in which a mapping was filled says nothing.  Every process must come to the same key, which
rules out ``hash()``: it salts strings anew in each process (PEP 456).

So the features are written down in one way only (names sorted, one type tag for each value, numbers
as big-endian IEEE 754 doubles, everything else behind its length) and digested with SHA-256.  The
idea of hashing a canonical form comes from RFC 8785; its form is JSON, which is several times
slower to write than these bytes and cannot say infinity.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Features = Mapping[str, object] | Sequence[object] | npt.NDArray[np.generic]
"""What a model is asked about: values by name, or one row of values in the model's own order."""

_DOUBLE = struct.Struct(">d")


class UnkeyableFeaturesError(ValueError):
    """These features have no key; ``name`` (or position) and ``value`` are what stands in the way.

    NaN is not equal to itself, and two rows that lack a value need not be the same row.
    """

    def __init__(self, name: object, value: object, reason: str) -> None:
        super().__init__(name, value, reason)
        self.name = name
        self.value = value
        self.reason = reason

    def __str__(self) -> str:
        return f"no cache key with feature {self.name!r}: {self.reason}"


def canonical_key(model_version: str, features: Features) -> str:
    """``model_version``, a colon, and 64 hexadecimal digits; the same in every process.

    ``features`` is a mapping from names to values, or one row: a sequence, or an array with one
    dimension.  Values are numbers (NumPy's too), booleans, strings or ``None``.

    Raises:
        UnkeyableFeaturesError: a value is NaN or none of these; a name is not a string; an array
            has not one dimension.
        ValueError: ``model_version`` is empty.
    """
    if not model_version:
        raise ValueError("a cached score belongs to a model: model_version is not empty")
    if isinstance(features, np.ndarray):
        if features.ndim != 1:
            raise UnkeyableFeaturesError(None, features.shape, "an array is one row, not a table")
        written = _write(features.tolist(), range(len(features)))
    elif isinstance(features, Mapping):
        names, header = _header(tuple(features))
        written = header + _write([features[name] for name in names], names)
    else:
        written = _write(features, range(len(features)))
    return f"{model_version}:{hashlib.sha256(written).hexdigest()}"


@lru_cache(maxsize=1024)
def _header(names: tuple[str, ...]) -> tuple[tuple[str, ...], bytes]:
    """The names in their canonical order, and written down."""
    for name in names:
        if not isinstance(name, str):
            raise UnkeyableFeaturesError(name, None, "its name is not a string")
    ordered = tuple(sorted(names))
    return ordered, b"m" + b"".join(_behind_its_length(name.encode()) for name in ordered)


def _write(values: Sequence[object], names: Sequence[object]) -> bytes:
    """All type tags, a semicolon, and the values, each as long as its tag or its length says."""
    if set(map(type, values)) == {float}:
        tags, doubles = _layout(len(values))
        if any(map(math.isnan, values)):  # type: ignore[arg-type]
            _refuse_nan(values, names)
        return tags + doubles.pack(*[value + 0.0 for value in values])  # type: ignore[operator]
    written = [_write_value(value, name) for value, name in zip(values, names, strict=True)]
    return b"".join([*(tag for tag, _ in written), b";", *(payload for _, payload in written)])


@lru_cache(maxsize=1024)
def _layout(length: int) -> tuple[bytes, struct.Struct]:
    return b"n" * length + b";", struct.Struct(f">{length}d")


def _refuse_nan(values: Sequence[object], names: Sequence[object]) -> None:
    for value, name in zip(values, names, strict=True):
        if value != value:
            raise UnkeyableFeaturesError(name, value, "it is NaN")


def _write_value(value: object, name: object) -> tuple[bytes, bytes]:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        _refuse_nan([value], [name])
        return b"n", _DOUBLE.pack(value + 0.0)  # -0.0 + 0.0 is 0.0
    if isinstance(value, int):
        return _write_integer(value)
    if isinstance(value, str):
        return b"s", _behind_its_length(value.encode("utf-8", "surrogatepass"))
    if value is None:
        return b"z", b""
    raise UnkeyableFeaturesError(name, value, f"a {type(value).__name__} has no canonical form")


def _write_integer(value: int) -> tuple[bytes, bytes]:
    """Above 2**53 doubles skip integers, and two identifiers must not share a key."""
    with contextlib.suppress(OverflowError):
        if float(value) == value:
            return b"n", _DOUBLE.pack(value)
    return b"i", _behind_its_length(b"%d" % value)


def _behind_its_length(text: bytes) -> bytes:
    return b"%d:%b" % (len(text), text)
