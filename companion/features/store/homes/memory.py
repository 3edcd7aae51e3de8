"""Online records in this process: the fastest home, and gone with it."""

import threading
from collections.abc import Iterable, Sequence

from companion.features.store.records import Record


class MemoryHome:
    """Records in a dictionary, safe with any number of threads."""

    name = "memory"

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Record]] = {}
        self._lock = threading.Lock()

    def put(self, table: str, records: Iterable[tuple[str, Record]]) -> int:
        """Write what is newer than what is there; how many records that were."""
        moved = 0
        with self._lock:
            there = self._tables.setdefault(table, {})
            for key, record in records:
                old = there.get(key)
                if old is None or record.stamp > old.stamp:
                    there[key] = record
                    moved += 1
        return moved

    def get(self, table: str, keys: Sequence[str]) -> list[Record | None]:
        """The record of each key, `None` for one that has none."""
        with self._lock:
            there = self._tables.get(table, {})
            return [there.get(key) for key in keys]

    def close(self) -> None:
        """Nothing to give back."""
