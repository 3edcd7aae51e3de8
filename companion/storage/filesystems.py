"""Which file system holds a path, and whether one machine alone can see it.

SQLite's write-ahead log keeps its index in memory that the processes of *one* machine share
(https://www.sqlite.org/wal.html, "all processes using a database must be on the same host
computer"), and file locks over a network are known to be unreliable
(https://www.sqlite.org/faq.html#q5).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

NETWORK_FILESYSTEMS = frozenset(
    {
        "afpfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.sshfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    }
)


class Mount(Protocol):
    """One mounted file system, as `psutil.disk_partitions(all=True)` describes it."""

    @property
    def mountpoint(self) -> str: ...
    @property
    def fstype(self) -> str: ...


def network_filesystem(path: Path, mounts: Sequence[Mount] | None = None) -> str | None:
    """The type of the network file system that holds `path` (`"nfs4"`), or None where it is local.

    `mounts` are the machine's own by default. The longest mount point above `path` decides, and of
    two mounts on one point the later, which hides the earlier.
    """
    place = path.resolve()
    holder: Mount | None = None
    for mount in _mounted() if mounts is None else mounts:
        point = Path(mount.mountpoint)
        if place.is_relative_to(point) and (
            holder is None or len(point.parts) >= len(Path(holder.mountpoint).parts)
        ):
            holder = mount
    if holder is None or holder.fstype not in NETWORK_FILESYSTEMS:
        return None
    return holder.fstype


def _mounted() -> Sequence[Mount]:
    import psutil  # here, so that importing the room stays cheap

    mounts: Sequence[Mount] = psutil.disk_partitions(all=True)
    return mounts
