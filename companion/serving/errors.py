"""The named ways in which a model can fail to be there."""

from pathlib import Path


class ModelLoadError(Exception):
    """The model `name` could not be loaded, and there is none to fall back on; the next call
    tries."""

    def __init__(self, name: str, cause: BaseException) -> None:
        super().__init__(f"{name} could not be loaded: {type(cause).__name__}: {cause}")
        self.name = name


class ModelReloadError(Exception):
    """A new `name` could not be loaded; the old one, of generation `kept`, goes on answering."""

    def __init__(self, name: str, kept: int, cause: BaseException) -> None:
        super().__init__(
            f"{name} could not be reloaded, generation {kept} goes on: "
            f"{type(cause).__name__}: {cause}"
        )
        self.name = name
        self.kept = kept


class WarmUpError(ValueError):
    """The model loaded, but its answer to the warm-up rows is none that may be served."""


class ChecksumMismatchError(ValueError):
    """The file at `path` is not the one that was expected; none of its bytes were parsed."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(f"{path} has sha256 {found[:12]}…, expected {expected[:12]}…")
        self.path = path
        self.expected = expected
        self.found = found
