"""What all tests share: a data folder of their own, and a browser where there is one."""

from collections.abc import Iterator

import pytest

from companion.study.doctor import CHROMIUMS, find_program


@pytest.fixture(scope="session", autouse=True)
def own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, and nothing that a test starts, writes to the progress of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPANION_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def chromium_program() -> str:
    """The path of a Chromium; skips the test where there is none."""
    program = find_program(CHROMIUMS)
    if program is None:
        pytest.skip(f"there is no Chromium on this machine ({', '.join(CHROMIUMS)})")
    return program


@pytest.fixture
def chromium(chromium_program):
    """A headless Chromium as a Playwright `Browser`, a fresh one for each test.

    Not one for the session: Playwright's event loop would run on between tests, and forbid
    `asyncio.run` to all of them.
    """
    from companion.study.picture import chromium as open_chromium

    with open_chromium(chromium_program) as browser:
        yield browser
