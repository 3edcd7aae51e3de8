"""Loops that are compiled once and kept on disk, without a lock on other threads meanwhile."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function`, compiled by Numba when first called; it keeps its type for a type checker."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))
