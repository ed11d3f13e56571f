"""An instance with some days of views, and a browser to look at them with."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.browser import traffic
from tests.browser.chromium import CHROMIUM, DRIVER, INSTALL, VISITOR, Browser, browser
from tests.functional import conftest as functional
from tests.functional.instance import Instance

pytest_runtest_call = functional.pytest_runtest_call
ASKED_FOR = "Failed to load resource: the server responded with a status of 40"  # by a test of a refusal


@pytest.fixture(scope="session")
def installed() -> None:
    """Without a browser these tests fail where they must not be missing, and are skipped elsewhere."""
    if CHROMIUM.exists() and DRIVER.exists():
        return
    missing = f"Debian's Chromium is missing; this installs it: {INSTALL}"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def instance(installed: None) -> Iterator[Instance]:
    """A running instance with the views of `traffic`."""
    folder = Path(tempfile.mkdtemp(prefix="footfall-browser-", dir="/tmp"))
    try:
        with Instance(folder / "data").running() as running:
            traffic.send(running)
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def chromium(instance: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests; `page` is what they use."""
    with browser(instance.url, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def visitor(instance: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser of a visitor: counted as one, and every `.example` is this machine."""
    with browser(instance.url, tmp_path_factory.mktemp("profile"), VISITOR) as opened:
        yield opened


@pytest.fixture(scope="module")
def engine(instance: Instance) -> Iterator[Engine]:
    """The instance's database."""
    engine = instance.engine()
    yield engine
    engine.dispose()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Browser]:
    """The browser, logged out. At the end: nobody else was asked, and the console is quiet."""
    chromium.look(1440)
    chromium.go("/login")
    chromium.driver.delete_all_cookies()
    chromium.go("/login")
    chromium.complaints()
    chromium.requested_hosts()
    yield chromium
    assert chromium.requested_hosts() <= {chromium.url.removeprefix("http://")}
    assert [text for text in chromium.complaints() if ASKED_FOR not in text] == []


@pytest.fixture
def moderator(page: Browser, instance: Instance) -> Browser:
    """The browser, logged in as a moderator."""
    page.log_in(token(instance, "moderator", "mo"))
    return page


@cache
def token(instance: Instance, role: str, subject: str) -> str:
    """What `footfall token` prints."""
    return instance.cli("token", "--role", role, "--subject", subject).stdout.strip()
