"""The named ways in which an artefact cannot be saved or read."""

from pathlib import Path


class ArtefactError(Exception):
    """Base of what goes wrong with the artefact in `folder`."""

    def __init__(self, folder: Path, message: str) -> None:
        super().__init__(f"{folder}: {message}")
        self.folder = folder


class ArtefactExistsError(ArtefactError, FileExistsError):
    """Something is under that name already, and an artefact never changes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "exists, and an artefact is never overwritten; use a new name")


class ArtefactNotFoundError(ArtefactError, FileNotFoundError):
    """There is no folder of that name."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "there is no such artefact")


class CorruptArtefactError(ArtefactError):
    """`file` is not what was saved; nothing of the artefact was parsed."""

    def __init__(self, folder: Path, file: str, reason: str) -> None:
        super().__init__(folder, f"{file} {reason}; restore the artefact or train it again")
        self.file = file
        self.reason = reason


class InvalidMetadataError(ValueError):
    """`field` of the metadata cannot be stored so that it comes back the same."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"metadata {field}: {problem}")
        self.field = field
