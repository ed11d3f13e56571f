"""The demo site as a newcomer meets it: links are followed, and the figures beside them go up."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import VISITOR, Browser, browser
from tests.functional.instance import Instance


@pytest.fixture(scope="module")
def visitor(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser of an instance with the demo site."""
    folder = Path(tempfile.mkdtemp(prefix="footfall-demo-site-", dir="/tmp"))
    try:
        with (
            Instance(folder / "data", {"FOOTFALL_DEMO_SITE": "true"}).running() as instance,
            browser(instance.url, tmp_path_factory.mktemp("profile"), VISITOR) as opened,
        ):
            yield opened
    finally:
        shutil.rmtree(folder)


def test_what_a_newcomer_does_is_counted_before_their_eyes(visitor: Browser) -> None:
    visitor.go("/demo")
    follow(visitor, "Tides")
    visitor.one("button[data-view]").click()
    says(visitor, "Counted: view 1 of this book")
    follow(visitor, "Lighthouse")
    says(visitor, "Counted: view 1 of this story")
    follow(visitor, "Home")
    follow(visitor, "Lighthouse")
    says(visitor, "No new view of this story (repeat)")
    follow(visitor, "Knots")
    says(visitor, "Counted: view 1 of this course")
    expected = {
        "/demo": "2",
        "/demo/tides": "1",
        "/demo/lighthouse": "2",
        "/demo/knots": "1",
        "/demo/about": "0",
        "book tides": "1",
        "story lighthouse": "1",
        "course knots": "1",
    }
    visitor.wait(lambda: figures(visitor) == expected, "the figures")
    assert visitor.complaints() == []
    assert visitor.requested_hosts() == {visitor.url.removeprefix("http://")}


def test_without_signing_in_the_book_is_not_counted_and_the_page_says_why(visitor: Browser) -> None:
    visitor.go("/demo/tides")
    visitor.one("#signed-in").click()
    visitor.one("button[data-view]").click()
    says(visitor, "need a signed-in reader")
    visitor.one("#signed-in").click()


def follow(visitor: Browser, name: str) -> None:
    """Click a link of the navigation, which changes the page without loading it."""
    visitor.script("window.isTheSameDocument = true")
    visitor.link(name).click()
    path = "/demo" if name == "Home" else f"/demo/{name.lower()}"
    visitor.wait(lambda: visitor.path() == path and visitor.script("return !document.hidden"), path)
    titles = {"Home": "Harbour Press", "Tides": "tides", "Lighthouse": "lighthouse", "Knots": "knots"}
    visitor.wait(lambda: titles[name] in visitor.text("main h1"), f"the page {name}")
    assert visitor.script("return window.isTheSameDocument") is True


def says(visitor: Browser, words: str) -> None:
    visitor.wait(lambda: words in visitor.text("#outcome"), words)


def figures(visitor: Browser) -> dict[str, str]:
    rows = visitor.script("return [...document.querySelectorAll('#counts tr')].map((row) => row.innerText)")
    return dict(row.split("\t") for row in rows)
