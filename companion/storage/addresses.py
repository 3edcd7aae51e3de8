"""Where something is kept, as it may be said aloud."""

from urllib.parse import urlsplit


def without_secrets(url: str) -> str:
    """`url` as it may stand in a log or an error: no user, no password, no options."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
