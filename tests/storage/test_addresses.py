"""An address that may be shown says where, and not how to get in."""

import pytest

from companion.storage import without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://user:secret@host:6379/0", "redis://host:6379/0"),
        ("redis://:p@ss@host/0", "redis://host/0"),
        ("postgresql://user@/db?host=/tmp&password=secret", "postgresql:///db"),
        ("unix://:secret@/run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_user_password_and_options_are_left_out(url, shown):
    assert without_secrets(url) == shown
