"""The named ways in which a feature store refuses: each carries what the caller needs to react.

Two families. `FrameRefusedError` is about what was handed in: the view, the columns, and the first
rows that are wrong; nothing of such a frame was stored. `OnlineStoreError` is about the place that
serves: it is down, slow, or holds something that this view cannot read.
"""

from collections.abc import Sequence

_SHOWN = 5


class FeatureStoreError(Exception):
    """Base of everything that `FeatureStore` raises by itself."""


class InvalidViewError(FeatureStoreError, ValueError):
    """A `FeatureView` is defined in a way that cannot work; the message says which part."""


class UnknownViewError(FeatureStoreError, LookupError):
    """`view` has not been registered with this store; `known` holds those that have."""

    def __init__(self, view: str, known: Sequence[str]) -> None:
        super().__init__(
            f"the view {view} is not registered; registered: {', '.join(known) or 'none'}"
        )
        self.view = view
        self.known = tuple(known)


class ViewConflictError(FeatureStoreError, ValueError):
    """`view` was registered before with another definition; `changed` names what differs."""

    def __init__(self, view: str, changed: Sequence[str]) -> None:
        super().__init__(
            f"the view {view} is registered already, and differs in {', '.join(changed)}; a "
            "changed view is a new version of it"
        )
        self.view = view
        self.changed = tuple(changed)


class FrameRefusedError(FeatureStoreError, ValueError):
    """A frame was refused as a whole: `columns` are the culprits, `rows` the first positions."""

    def __init__(
        self, view: str, reason: str, columns: Sequence[str] = (), rows: Sequence[int] = ()
    ) -> None:
        where = f": {', '.join(columns)}" if columns else ""
        first = f" (first at row {', '.join(map(str, rows[:_SHOWN]))})" if len(rows) else ""
        super().__init__(f"{view}: {reason}{where}{first}")
        self.view = view
        self.columns = tuple(columns)
        self.rows = tuple(int(row) for row in rows[:_SHOWN])


class MissingColumnsError(FrameRefusedError):
    """The frame lacks `columns`."""


class ClashingColumnsError(FrameRefusedError):
    """The entity frame already has `columns` that the view is about to add."""


class WrongDtypeError(FrameRefusedError):
    """`columns` have another dtype than the view declares."""


class NaiveTimeError(FrameRefusedError):
    """The times in `columns` do not know their zone, so nobody can say when that was."""


class MissingTimesError(FrameRefusedError):
    """`columns` lack a time in some `rows`."""


class MissingKeysError(FrameRefusedError):
    """`columns` lack a key in some `rows`: a value that belongs to nobody."""


class ConflictingRowsError(FrameRefusedError):
    """Rows give other values for the same key, event time and created time as rows before."""


class OnlineStoreError(FeatureStoreError):
    """The online store at `home` answered with an error."""

    def __init__(self, home: str, reason: str) -> None:
        super().__init__(f"the online store {home}: {reason}")
        self.home = home
        self.reason = reason


class OnlineStoreUnavailableError(OnlineStoreError, ConnectionError):
    """No answer from the online store; nothing waited longer than `timeout` seconds."""

    def __init__(self, home: str, reason: str, timeout: float) -> None:
        super().__init__(home, f"no answer within {timeout:g} s ({reason})")
        self.timeout = timeout


class UnreadableRecordError(OnlineStoreError):
    """What lies under `key` was not written by this definition of the view."""

    def __init__(self, home: str, key: str, reason: str) -> None:
        super().__init__(home, f"the record under {key!r} cannot be used: {reason}")
        self.key = key
