"""The script in a real browser against the real API: the database holds exactly the views that were seen."""

from collections import Counter
from collections.abc import Iterator
from itertools import count

import pytest
from sqlalchemy import Engine, text

from tests.browser.chromium import Browser
from tests.browser.conftest import token
from tests.browser.site import SCRIPT, Site, serving
from tests.factory import EVENTS
from tests.functional.instance import Instance
from tests.waiting import wait_until

VIEWS = text(f"""
    SELECT e.external_id, v.referrer_domain, v.authenticated
    FROM {EVENTS} AS v JOIN entities AS e ON e.id = v.entity_id
    WHERE v.outcome = 'counted' AND e.entity_type = 'page' AND e.external_id LIKE :prefix
""")
numbers = count(1)


class Visit:
    """A tab on the site below a folder of its own, and what the database says of it."""

    def __init__(self, tab: Browser, site: Site, instance: Instance, engine: Engine) -> None:
        self.tab, self.site, self._instance, self._engine = tab, site, instance, engine
        self.folder = f"/v{next(numbers)}"

    def go(self, page: str, host: str = "site.example") -> None:
        """Load a page of the folder."""
        self.tab.driver.get(f"{self.site.url(host)}{self.folder}{page}")

    def push(self, page: str, how: str = "pushState") -> None:
        """Navigate without loading."""
        self.tab.script(f"history.{how}(null, '', arguments[0])", self.folder + page)

    def views(self) -> Counter[str]:
        """{page: views}, of what was seen until now: after one more, before which everything was sent."""
        self.site.refusing = False
        self.go("/the-end")
        self.arrived("/the-end")
        wait_until(lambda: not self.waiting(), "the script's queue to be empty")
        return Counter(page for page, _, _ in self.rows() if page != "/the-end")

    def waiting(self) -> int:
        """How many views the browser still keeps."""
        keys: list[str] = self.tab.script("return Object.keys(localStorage)")
        return sum(key.startswith("footfall.") for key in keys)

    def arrived(self, page: str, times: int = 1) -> None:
        """Wait until a page has so many views in the database."""
        wait_until(lambda: sum(row[0] == page for row in self.rows()) >= times, f"{times} views of {page}")

    def rows(self) -> list[tuple[str, str | None, bool]]:
        """(page, referrer's domain, signed in) of each stored view."""
        with self._engine.connect() as connection:
            rows = connection.execute(VIEWS, {"prefix": f"{self.folder}/%"})
            return [(path.removeprefix(self.folder), domain, signed) for path, domain, signed in rows]


@pytest.fixture
def visit(visitor: Browser, instance: Instance, engine: Engine) -> Iterator[Visit]:
    """A visit, after which the browser has forgotten everything."""
    with serving(instance.url) as site:
        yield Visit(visitor, site, instance, engine)
        visitor.driver.execute_cdp_cmd(
            "Storage.clearDataForOrigin", {"origin": site.url(), "storageTypes": "all"}
        )
        visitor.driver.get("about:blank")


def test_each_page_that_is_seen_is_one_view(visit: Visit) -> None:
    visit.go("/a")
    visit.arrived("/a")
    visit.push("/b")
    visit.push("/c", "replaceState")
    visit.tab.driver.back()
    visit.arrived("/a", 2)
    visit.tab.driver.forward()
    visit.arrived("/c", 2)
    visit.tab.driver.refresh()
    visit.arrived("/c", 3)
    assert visit.views() == {"/a": 2, "/b": 1, "/c": 3}


def test_another_query_or_fragment_is_no_other_page(visit: Visit) -> None:
    visit.go("/a?x=1")
    visit.arrived("/a")
    visit.push("/a?x=2")
    visit.push("/a#part")
    visit.tab.script("location.hash = 'other'")
    visit.push("/a", "replaceState")
    visit.push("/b?x=1#y")
    visit.arrived("/b")
    assert visit.views() == {"/a": 1, "/b": 1}


def test_a_page_that_is_come_back_to_is_another_view_also_from_the_cache(visit: Visit) -> None:
    visit.go("/a")
    visit.arrived("/a")
    visit.tab.script("addEventListener('pageshow', (event) => { window.fromCache = event.persisted })")
    visit.go("/b")
    visit.arrived("/b")
    visit.tab.driver.back()
    visit.arrived("/a", 2)
    assert visit.tab.script("return window.fromCache") is True, "else this tests a plain load"
    assert visit.views() == {"/a": 2, "/b": 1}


def test_a_tab_in_the_background_is_counted_when_it_is_looked_at(visit: Visit) -> None:
    visit.go("/a")
    visit.arrived("/a")
    driver = visit.tab.driver
    before = set(driver.window_handles)
    background = {"url": f"{visit.site.url()}{visit.folder}/behind", "background": True}
    driver.execute_cdp_cmd("Target.createTarget", background)
    wait_until(lambda: set(driver.window_handles) - before, "the other tab")
    (behind,) = set(driver.window_handles) - before
    first = driver.current_window_handle
    visit.push("/b")
    visit.arrived("/b")
    assert [page for page, _, _ in visit.rows() if page == "/behind"] == []
    driver.switch_to.window(behind)
    driver.execute_cdp_cmd("Page.bringToFront", {})
    visit.arrived("/behind")
    driver.close()
    driver.switch_to.window(first)
    assert visit.views() == {"/a": 1, "/b": 1, "/behind": 1}


def test_what_is_seen_offline_is_counted_afterwards_once(visit: Visit) -> None:
    visit.go("/a")
    visit.arrived("/a")
    driver = visit.tab.driver
    driver.execute_cdp_cmd("Network.enable", {})
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **network})
    visit.push("/b")
    visit.push("/c")
    wait_until(lambda: visit.waiting() == 2, "two views to wait")
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **network})
    visit.arrived("/b")
    visit.arrived("/c")
    assert visit.views() == {"/a": 1, "/b": 1, "/c": 1}


def test_what_was_refused_is_sent_again_under_its_id_also_from_the_next_page(visit: Visit) -> None:
    visit.site.refusing = True
    visit.go("/a")
    visit.push("/b")
    wait_until(lambda: len(visit.site.posts) >= 3, "an attempt after the first")
    visit.go("/c")
    wait_until(lambda: visit.waiting() == 3, "three views to wait")
    visit.site.refusing = False
    for page in ("/a", "/b", "/c"):
        visit.arrived(page)
    assert visit.views() == {"/a": 1, "/b": 1, "/c": 1}
    assert len(set(visit.site.ids())) == 4, "and one of the end"
    assert len(visit.site.ids()) > 4


def test_the_referrer_is_the_previous_page_on_the_first_load_and_the_sites_own_is_dropped(
    visit: Visit,
) -> None:
    visit.site.next = f"{visit.site.url()}{visit.folder}/a"
    visit.go("/elsewhere", host="search.example")
    visit.tab.one("#next").click()
    visit.arrived("/a")
    visit.push("/b")
    visit.site.next = f"{visit.folder}/c"
    visit.go("/d")
    visit.tab.one("#next").click()
    visit.arrived("/c")
    referrers = {page: domain for page, domain, _ in visit.rows()}
    assert referrers == {"/elsewhere": None, "/a": "search.example", "/b": None, "/c": None, "/d": None}


def test_who_has_a_token_is_counted_as_signed_in(visit: Visit, instance: Instance) -> None:
    secret = token(instance, "user", "ann")
    visit.site.head = f"<script>footfall = {{ token: async () => '{secret}' }}</script>" + visit.site.head
    visit.go("/a")
    visit.arrived("/a")
    assert [row for row in visit.rows() if row[0] == "/a"] == [("/a", None, True)]


def test_who_has_opted_out_is_not_counted_until_they_opt_in(visit: Visit) -> None:
    visit.go("/a")
    visit.arrived("/a")
    visit.tab.script("footfall.optOut()")
    visit.go("/b")
    visit.push("/c")
    visit.tab.script("footfall.optOut(false)")
    visit.go("/d")
    visit.arrived("/d")
    assert visit.views() == {"/a": 1, "/d": 1}


def test_the_attributes_do_what_they_say(visit: Visit) -> None:
    excluded = f"{visit.folder}/admin/*, *.pdf"
    visit.site.head = SCRIPT.format(attributes=f' data-exclude="{excluded}"')
    visit.go("/admin/users")
    visit.push("/a.pdf")
    visit.push("/a")
    visit.arrived("/a")
    assert visit.views() == {"/a": 1}
    visit.site.head = SCRIPT.format(attributes=" data-manual")
    visit.go("/m")
    visit.push("/n")
    visit.tab.script("footfall.track(arguments[0])", f"{visit.folder}/o")
    visit.arrived("/o")
    visit.site.head = SCRIPT.format(attributes=" data-hash")
    visit.go("/app#/books")
    visit.arrived("/app/books")
    visit.tab.script("location.hash = '/books/7?page=2'")
    visit.arrived("/app/books/7")
    assert visit.views() == {"/a": 1, "/o": 1, "/app/books": 1, "/app/books/7": 1}


def test_a_view_of_content_is_answered(visit: Visit) -> None:
    visit.go("/a")
    wanted = "return footfall.view({entityType: 'course', entityId: arguments[0]})"
    answers = [visit.tab.script(wanted, visit.folder) for _ in range(2)]
    assert [(answer["counted"], answer["view_count"]) for answer in answers] == [(True, 1), (True, 2)]


@pytest.mark.parametrize(
    "hindrance",
    [
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no') } })",
        "Object.defineProperty(window, 'localStorage', { value: null })",
        "Storage.prototype.setItem = () => { throw new Error('full') }",
        "delete window.navigation; delete window.fetch",
        "crypto.getRandomValues = () => { throw new Error('no') }",
    ],
)
def test_a_browser_that_lacks_something_is_counted_and_undisturbed(visit: Visit, hindrance: str) -> None:
    visit.site.head = f"<script>{hindrance}</script>{visit.site.head}"
    visit.go("/a")
    visit.push("/b")
    visit.arrived("/a")
    visit.arrived("/b")
    assert [text for text in visit.tab.complaints() if "Error" in text] == []
