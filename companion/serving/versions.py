"""A version of the API on its way out: every response says so, and after the date it is gone.

Who still calls an old version is a program. It reads the headers of the answers that it gets, not
an announcement elsewhere, so each answer of the old version carries

* `Deprecation: @1780272000` (RFC 9745): since when nobody should build on it, in Unix seconds;
* `Sunset: Tue, 01 Jun 2027 00:00:00 GMT` (RFC 8594): when it stops answering, as an HTTP date;
* `Link` with `rel="deprecation"` to what people should read and `rel="successor-version"`
  (RFC 5829) to what replaces it.

It is ASGI middleware, and no dependency of the routes, since a dependency's headers are lost on
exactly the answers that a forgotten client gets: 404, 422, and those of unhandled errors.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from companion.serving.problems import problem_response

__all__ = ["DeprecatedVersion"]


class DeprecatedVersion:
    """Marks every answer under `prefix` as deprecated, and answers 410 from `sunset_at` on.

    The 410 is problem+json (RFC 9457) that names the successor; the application is not asked any
    more. Paths outside `prefix` pass untouched: `/v10` is not under `/v1`.

    Put it around the whole application, or the answers to unhandled errors pass it by.

    Args:
        app: the application, with all its versions.
        prefix: where the old version lives, like `/v1`.
        deprecated_at, sunset_at: moments with a time zone.
        successor: address of what replaces it, as clients see it, like `/v2/predict`.
        guide: address of the page that tells people how to move.
        clock: the time now, with a time zone.

    Raises:
        ValueError: a setting that makes no sense, by name.
    """

    def __init__(
        self,
        app: ASGIApp,
        prefix: str = "/v1",
        *,
        deprecated_at: datetime,
        sunset_at: datetime,
        successor: str,
        guide: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not prefix.startswith("/") or prefix.endswith("/"):
            raise ValueError(f"prefix begins with a slash and ends without one, got {prefix!r}")
        for name, moment in {"deprecated_at": deprecated_at, "sunset_at": sunset_at}.items():
            if moment.tzinfo is None:
                raise ValueError(f"{name} needs a time zone, got {moment!r}")
        if sunset_at < deprecated_at:
            raise ValueError(
                f"sunset_at is not before deprecated_at, got {sunset_at} and {deprecated_at}"
            )
        for name, address in {"successor": successor, "guide": guide}.items():
            if not _fits_into_a_link(address):
                raise ValueError(f"{name} is an address in printable ASCII, got {address!r}")
        self._app = app
        self._prefix = prefix
        self._sunset_at = sunset_at
        self._successor = successor
        self._clock = clock
        self._deprecation = f"@{int(deprecated_at.timestamp())}"
        self._sunset = format_datetime(sunset_at.astimezone(UTC), usegmt=True)
        self._link = f'<{guide}>; rel="deprecation", <{successor}>; rel="successor-version"'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; anything but HTTP under `prefix` passes through at once."""
        if scope["type"] != "http" or not self._is_under_prefix(scope):
            await self._app(scope, receive, send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["deprecation"] = self._deprecation
                headers["sunset"] = self._sunset
                headers.append("link", self._link)
            await send(message)

        app = self._gone if self._clock() >= self._sunset_at else self._app
        await app(scope, receive, send_marked)

    def _is_under_prefix(self, scope: Scope) -> bool:
        # A server behind a proxy puts the proxy's own prefix (root_path) in front of the path.
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        return path == self._prefix or path.startswith(f"{self._prefix}/")

    async def _gone(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem_response(
            410,
            "Gone",
            f"{self._prefix} stopped answering at {self._sunset_at.isoformat()}",
            successor=self._successor,
        )
        await response(scope, receive, send)


def _fits_into_a_link(address: str) -> bool:
    # A line break would end the header, an angle bracket the address.
    return (
        bool(address)
        and address.isascii()
        and address.isprintable()
        and not set(address) & set("<> ")
    )
