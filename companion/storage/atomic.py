"""Files and folders that appear whole or not at all.

A reader must never meet half a file, and a power cut must never leave one. The recipe is old:
write a temporary file *in the same folder* (a rename is atomic only within one file system),
fsync it, rename it over the name, then fsync the folder, because the rename itself is an entry of
the folder and can be lost too. Pillai et al., "All File Systems Are Not Created Equal" (OSDI
2014), measured what happens to programs that leave a step out.

A process that is killed may leave a file whose name begins with `TEMPORARY_PREFIX`; it holds
nothing that anybody was promised and can be deleted once its writer is gone.
"""

import os
import secrets
import stat
from pathlib import Path

from companion.storage.errors import AlreadyExistsError, MissingFolderError

TEMPORARY_PREFIX = ".tmp-"


def write_text(path: str | os.PathLike[str], text: str, *, mode: int | None = None) -> None:
    """`write_bytes` of `text` as UTF-8, with line ends as they stand."""
    write_bytes(path, text.encode("utf-8"), mode=mode)


def write_bytes(path: str | os.PathLike[str], data: bytes, *, mode: int | None = None) -> None:
    """Put `data` under `path`, replacing what was there, so that any reader sees old or new, whole.

    `mode` sets the permission bits (0o600 for what is private); without it a replaced file keeps
    its own and a new one follows the umask. A symbolic link at `path` is replaced, not followed.

    Raises `MissingFolderError` where the folder does not exist, `IsADirectoryError` where `path`
    is a folder. On any failure the old file is untouched and no temporary file stays.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise MissingFolderError(target.parent)
    permissions = _permissions_of(target) if mode is None else mode
    temporary = temporary_path(target.parent)
    # Created with its final bits and not narrowed later: a secret is at no time readable.
    descriptor = os.open(
        temporary,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL,
        0o666 if permissions is None else permissions,
    )
    try:
        with open(descriptor, "wb") as file:
            if permissions is not None:
                os.chmod(
                    temporary, permissions
                )  # the umask has narrowed what os.open was asked for
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def publish_folder(staged: str | os.PathLike[str], final: str | os.PathLike[str]) -> None:
    """Rename the finished folder `staged` to `final`, which must not exist, and sync it all.

    Of several publishers of one name exactly one wins, without a lock: POSIX `rename` replaces a
    folder only where that is empty, and an empty `staged` is refused here, so a published folder
    never is.

    Raises `AlreadyExistsError` where `final` exists (`staged` stays as it was),
    `MissingFolderError` where either folder's parent is missing, `ValueError` for an empty
    `staged`, and `OSError` (EXDEV) where the two lie on different file systems.
    """
    source, target = Path(staged), Path(final)
    for folder in (source, target.parent):
        if not folder.is_dir():
            raise MissingFolderError(folder)
    if not any(source.iterdir()):
        raise ValueError(f"{source} is empty: an empty folder cannot be protected from overwriting")
    _sync_tree(source)
    if os.path.lexists(target):
        raise AlreadyExistsError(target)
    try:
        os.rename(source, target)
    except (FileExistsError, NotADirectoryError) as error:
        raise AlreadyExistsError(target) from error
    except OSError as error:
        # ENOTEMPTY is how POSIX says "taken"; EXDEV, EACCES or ENOSPC are news of their own.
        if os.path.lexists(target):
            raise AlreadyExistsError(target) from error
        raise
    sync_folder(target.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the entries of `folder` (names made, renamed or removed) survive a power cut."""
    if os.name == "nt":  # Windows cannot open a folder; NTFS journals its entries by itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_path(folder: Path) -> Path:
    """A path in `folder` that nobody else uses, for what is about to be renamed into place."""
    return folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"


def _permissions_of(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.lstat().st_mode) if not path.is_symlink() else None
    except FileNotFoundError:
        return None


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(Path(parent, name), "r+b") as file:
                os.fsync(file.fileno())
        sync_folder(parent)
