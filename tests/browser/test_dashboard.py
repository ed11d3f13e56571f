"""The dashboard as people use it, in a real browser on a running instance."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from selenium.webdriver import ActionChains, Keys

from tests.browser.chromium import Browser
from tests.browser.conftest import token
from tests.browser.traffic import FIREFOX, LONG, NASTY, OWNER, PATHS, POST, TITLE
from tests.functional.instance import Instance

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
SITE, BLOG_POST = "/mod-dashboard", f"/mod-dashboard/blog_post/{POST}"


def test_a_token_opens_the_dashboard_and_logging_out_closes_it(page: Browser, instance: Instance) -> None:
    page.go(f"{SITE}?range=30d")
    assert page.path() == f"/login?next={SITE}?range%3D30d"
    page.one("#token").send_keys("nonsense", Keys.ENTER)
    assert "does not verify" in page.text("[role=alert]")
    page.log_in(token(instance, "moderator", "mo"))
    assert page.path() == f"{SITE}?range=30d"
    assert page.text("h1") == "The whole site"
    assert page.script("return document.cookie") == ""
    (cookie,) = page.driver.get_cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")

    page.one(".account button").click()
    page.wait(lambda: page.path() == "/login", "the form after logging out")
    assert page.driver.get_cookies() == []
    page.driver.back()
    page.wait(lambda: page.path().startswith("/login"), "the form in place of the page before")
    assert not page.all(".card")


def test_who_is_no_moderator_is_told_so_and_may_be_somebody_else(page: Browser, instance: Instance) -> None:
    page.go(SITE)
    page.log_in(token(instance, "user", OWNER))
    assert "needs the role moderator" in page.text("main")
    page.go(BLOG_POST)
    assert page.text("h1") == TITLE
    assert not page.all(".back")
    page.go(SITE)
    page.one("main button").click()
    page.wait(lambda: page.path() == "/login", "the form")


@pytest.mark.parametrize("audience", ["all", "authenticated"])
def test_ranges_and_audiences_show_what_the_api_says(
    moderator: Browser, instance: Instance, audience: str
) -> None:
    moderator.link({"all": "All viewers", "authenticated": "Signed in"}[audience]).click()
    suffix = "" if audience == "all" else "_authenticated"
    seen = []
    for name, days in (("Today", 1), ("7 days", 7), ("30 days", 30)):
        moderator.link(name).click()
        moderator.wait(lambda name=name: moderator.text(".switch:last-child [aria-current]") == name, name)
        assert moderator.text(".switch [aria-current]") == {"": "All viewers"}.get(suffix, "Signed in")
        told = sitewide(instance, days)
        expected = [
            told[f"total_page_views{suffix}"],
            told[f"visitor_days{suffix}"],
            told["new_signups"],
            told["new_posts"],
            told["total_api_calls"],
            told["total_errors"],
        ]
        assert figures(moderator) == expected
        assert rows(moderator, "Devices") == {
            device.capitalize(): views for device, views in told[f"views_by_device{suffix}"].items()
        }
        assert rows(moderator, "Referrers") == told[f"top_referrers{suffix}"]
        seen.append(expected[0])
    assert seen[0] < seen[1] == seen[2]


def test_countries_have_names_and_flags(moderator: Browser, instance: Instance) -> None:
    told = sitewide(instance, 7)["views_by_country"]
    shown = rows(moderator, "Countries")
    assert shown == {
        f"{flag}{name}": told[code]
        for code, flag, name in (
            ("DE", "🇩🇪", "Germany"),
            ("FR", "🇫🇷", "France"),
            ("US", "🇺🇸", "United States"),
            ("ZZ", "", "Unknown"),
        )
    }


def test_the_table_behind_the_chart_has_every_day_and_the_gap(moderator: Browser, instance: Instance) -> None:
    chart = panel(moderator, "Views and visitors a day")
    assert not chart.find_element("css selector", "table").is_displayed()
    chart.find_element("css selector", "summary").click()
    cells = [
        [cell.text for cell in row.find_elements("css selector", "th, td")]
        for row in chart.find_elements("css selector", "tbody tr")
    ]
    daily = sitewide(instance, 7)["daily_views"]
    assert [(views, visitors) for _, views, visitors, _ in cells] == [
        (f"{day['views']:,}", f"{day['unique_viewers']:,}") for day in reversed(daily)
    ]
    assert [note.startswith("gap") for *_, note in cells] == [day["gap"] for day in reversed(daily)]
    hatched = chart.find_elements("css selector", ".column .gap")
    assert len(hatched) == sum(day["gap"] for day in daily) > 0
    assert "nobody counted" in moderator.text(".notice")
    label = chart.find_element("css selector", ".plot").get_attribute("aria-label") or ""
    assert f"{sum(day['views'] for day in daily):,} in all" in label


def test_pointing_at_a_day_says_its_numbers(moderator: Browser, instance: Instance) -> None:
    chart = panel(moderator, "Views and visitors a day")
    columns = chart.find_elements("css selector", ".column .hit")
    ActionChains(moderator.driver).move_to_element(columns[-1]).perform()
    today = sitewide(instance, 7)["daily_views"][-1]
    lines = moderator.text(".tip").splitlines()
    assert lines[1:] == [
        f"Views: {today['views']:,}",
        f"Unique visitors: {today['unique_viewers']:,}",
        "so far",
    ]


def test_a_page_is_opened_from_the_list(moderator: Browser, instance: Instance) -> None:
    moderator.link("30 days").click()
    moderator.wait(lambda: "range=30d" in moderator.path(), "the range")
    for path in (NASTY, LONG, "/ä/ö"):
        moderator.link(path).click()
        moderator.wait(lambda: moderator.path().startswith(f"{SITE}/page"), "the page")
        assert moderator.text("h1") == path
        told = get(instance, f"/api/stats/page?path={quote(path)}&days=30")
        assert figures(moderator)[:3] == [told["total_views"], told["visitor_days"], told["all_time_views"]]
        assert "range=30d" in moderator.path()
        moderator.link("← The whole site").click()
        moderator.wait(lambda: moderator.text("h1") == "The whole site", "the site")
        assert "range=30d" in moderator.path()


def test_the_search_filters_at_once_and_asks_the_server_on_enter(moderator: Browser) -> None:
    assert len(listed(moderator)) == len(PATHS)
    moderator.one("#q").send_keys("GUIDES")
    assert sorted(listed(moderator)) == sorted([LONG, "/guides/tides"])
    assert moderator.text("[data-found]") == f"2 of {len(PATHS)} shown"
    moderator.one("#q").send_keys(Keys.ENTER)
    moderator.wait(lambda: "q=GUIDES" in moderator.path(), "the answer")
    assert sorted(listed(moderator)) == sorted([LONG, "/guides/tides"])


def test_other_types_are_listed_by_title(moderator: Browser) -> None:
    moderator.one("#type option[value=blog_post]").click()
    moderator.one(".search button").click()
    moderator.wait(lambda: "type=blog_post" in moderator.path(), "the list")
    moderator.link(TITLE).click()
    moderator.wait(lambda: moderator.path().startswith(BLOG_POST), "the post")
    assert rows(moderator, "Reactions") == {"🦀": 9, "👍": 3}
    assert sum(rows(moderator, "View types").values()) == figures(moderator)[0]


def test_everything_works_without_scripts(page: Browser, instance: Instance) -> None:
    with scripts_off(page):
        page.go(SITE)
        page.log_in(token(instance, "moderator", "mo"))
        told = sitewide(instance, 7)
        assert figures(page)[0] == told["total_page_views"]
        assert rows(page, "Countries")["🇩🇪DE"] == told["views_by_country"]["DE"]
        page.one("#q").send_keys("guides", Keys.ENTER)
        page.wait(lambda: "q=guides" in page.path(), "the answer")
        assert len(listed(page)) == 2
        page.link("Today").click()
        page.wait(lambda: "range=24h" in page.path(), "today")
        assert figures(page)[0] == sitewide(instance, 1)["total_page_views"]


def test_the_keyboard_is_enough(page: Browser, instance: Instance) -> None:
    page.go(SITE)
    assert focused(page)["id"] == "token"
    press(page, token(instance, "moderator", "mo"), Keys.ENTER)
    page.wait(lambda: page.all("h1") and page.text("h1") == "The whole site", "the dashboard")
    reached = []
    for _ in range(60):
        press(page, Keys.TAB)
        element = focused(page)
        assert element["outline"] != "none", element
        reached.append(element["text"])
        if element["text"].startswith("Table of: Views and visitors a day"):
            break
    assert reached[0] == "Skip to the figures"
    assert [name for name in reached if name in {"Log out", "Signed in", "Today", "30 days"}] == [
        "Log out",
        "Signed in",
        "Today",
        "30 days",
    ]
    press(page, Keys.ENTER)
    assert panel(page, "Views and visitors a day").find_element("css selector", "table").is_displayed()
    page.one(".switch a:not([aria-current])").send_keys(Keys.ENTER)
    page.wait(lambda: "audience=authenticated" in page.path(), "the other audience")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    moderator: Browser, width: int, dark: bool
) -> None:
    moderator.look(width, dark=dark)
    for path in (f"{SITE}?range=30d", f"{SITE}?range=24h&q=none", BLOG_POST, f"{SITE}/book/none", "/login"):
        moderator.go(path)
        assert moderator.script("return document.documentElement.scrollWidth") <= width, path
        moderator.script("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        assert serious(moderator) == [], path


def test_what_happens_now_comes_without_a_reload(moderator: Browser, instance: Instance) -> None:
    before = int(moderator.text("[data-now]"))
    views = moderator.script(
        "return [...document.querySelectorAll('.live td')].map((cell) => +cell.textContent)"
    )
    assert sum(views) >= 12
    for person in range(3):
        answer = instance.post(
            "/api/track/page-view", {"path": f"/just-now-{person}"}, {"User-Agent": f"{FIREFOX} {person}"}
        )
        assert answer.status == 204
    moderator.script("window.isStill = true")
    moderator.wait(lambda: int(moderator.text("[data-now]")) == before + 3, "the new visitors")
    assert moderator.script("return window.isStill")


def serious(page: Browser) -> list[str]:
    """What axe-core finds serious or critical in the page."""
    page.script(AXE)
    found = page.driver.execute_async_script(
        "const done = arguments[0]; axe.run().then(done, (error) => done(String(error)))"
    )
    assert isinstance(found, dict), found
    return [
        f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']][:3]}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
    ]


def get(instance: Instance, path: str) -> dict[str, Any]:
    """An answer of the API, for a moderator."""
    headers = {"Authorization": f"Bearer {token(instance, 'moderator', 'test')}"}
    answer = instance.get(path, headers)
    assert answer.status == 200
    told: dict[str, Any] = answer.json
    return told


def sitewide(instance: Instance, days: int) -> dict[str, Any]:
    """The site's figures."""
    return get(instance, f"/api/admin/sitewide-stats?days={days}")


def figures(page: Browser) -> list[int]:
    """The numbers of the cards."""
    return [int(card.text.replace(",", "")) for card in page.all(".card .figure")]


def panel(page: Browser, title: str) -> Any:
    """The panel of that title."""
    return next(
        one
        for one in page.all(".panel")
        if any(h.text == title for h in one.find_elements("css selector", "h2"))
    )


def rows(page: Browser, title: str) -> dict[str, int]:
    """{name: number} of a breakdown."""
    return {
        row.find_element("css selector", ".name").text.replace("\n", ""): int(
            row.find_element("css selector", "td").text.replace(",", "")
        )
        for row in panel(page, title).find_elements("css selector", "tbody tr")
    }


def listed(page: Browser) -> list[str]:
    """The names of the most viewed that are shown."""
    return [
        row.find_element("css selector", ".name").text
        for row in page.all("#entries tbody tr")
        if row.is_displayed()
    ]


def press(page: Browser, *keys: str) -> None:
    """Type into whatever has the focus."""
    page.driver.switch_to.active_element.send_keys(*keys)


def focused(page: Browser) -> dict[str, str]:
    """What has the focus, and how that is seen."""
    found: dict[str, str] = page.script(
        "const one = document.activeElement;"
        "return { id: one.id, text: one.textContent.trim(), outline: getComputedStyle(one).outlineStyle }"
    )
    return found


@contextmanager
def scripts_off(page: Browser) -> Iterator[None]:
    """A browser that runs no scripts of pages."""
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        yield
    finally:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
