"""Panels: how figures are named, compared and told."""

from datetime import UTC, date
from zoneinfo import ZoneInfo

import pytest

from api.dashboard import panels
from footfall.clock import days_back


def daily(*views: int, gap: int | None = None) -> list[dict[str, object]]:
    days = days_back(date(2026, 11, 21), len(views))
    return [
        {"date": day.isoformat(), "views": n, "unique_viewers": n // 2, "gap": index == gap}
        for index, (day, n) in enumerate(zip(days, views, strict=True))
    ]


@pytest.mark.parametrize(
    ("before", "now", "change", "direction"),
    [
        (100, 150, "+50 %", "better"),
        (100, 98, "\N{MINUS SIGN}2.0 %", "worse"),
        (100, 100, "+0.0 %", ""),
        (0, 5, "", ""),
    ],
)
def test_cards_compare_whole_days_and_leave_today_out(
    before: int, now: int, change: str, direction: str
) -> None:
    # of the range before its last day is left out too: today is compared with nothing
    card = panels.card("Views", now + 1, [before, 777, now, 1], 2)
    assert (card.value, card.change, card.direction) == (now + 1, change, direction)
    assert card.before == ("vs 2 days before" if change else "")


def test_what_is_not_kept_or_has_a_gap_is_not_compared() -> None:
    for daily in ([0, 5, 0], [None, 0, 5, 0], [5, 0, None, 0]):
        assert panels.card("Views", 7, daily, 2) == panels.Card("Views", 7)


def test_a_day_that_has_just_begun_is_not_called_a_loss() -> None:
    card = panels.card("Views", 3, [7, 1_200, 3], 1)
    assert (card.change, card.before) == ("", "1,200 yesterday")
    assert panels.card("Views", 3, [None, 3], 1).before == ""


def test_days_with_a_gap_are_not_numbers() -> None:
    assert panels.by_day(daily(1, 2, 3, gap=1), "views") == [1, None, 3]
    counts = [{"date": "2026-11-20", "count": 4}, {"date": "2026-11-21", "count": 5}]
    assert panels.by_day(counts, "count", {"2026-11-20"}) == [None, 5]


def test_the_table_of_days_has_the_latest_first_and_notes_gaps_and_today() -> None:
    chart = panels.days(daily(10, 0, 1_234, 4, gap=1))
    assert chart.rows == [
        ("Sat 21 Nov", "4", "2", "so far"),
        ("Fri 20 Nov", "1,234", "617", ""),
        ("Thu 19 Nov", "0", "0", "gap: not counted for a while"),
        ("Wed 18 Nov", "10", "5", ""),
    ]
    assert chart.has_gap
    assert panels.gap_days(daily(1, 2, 3, gap=1)) == ["Fri 20 Nov"]


def test_days_without_views_are_empty_but_days_with_a_gap_are_not() -> None:
    assert panels.days(daily(0, 0, 0)).is_empty
    assert not panels.days(daily(0, 0, 0, gap=0)).is_empty


@pytest.mark.parametrize(
    ("code", "flag"), [("DE", "🇩🇪"), ("ZZ", ""), ("", ""), ("de", ""), ("DEU", ""), ("ÄÖ", "")]
)
def test_flags_are_of_two_letters(code: str, flag: str) -> None:
    assert panels.flag(code) == flag


def test_an_unknown_country_is_not_left_to_the_browser() -> None:
    unknown, germany = panels.countries({"ZZ": 3, "DE": 1}, 4).bars
    assert (unknown.name, unknown.code, unknown.percent) == ("Unknown", "", "75 %")
    assert (germany.name, germany.code, germany.percent) == ("DE", "DE", "25 %")


def test_what_was_not_counted_is_told_with_its_reason() -> None:
    bots, own, repeats = panels.not_counted({"bot": 8, "own": 2, "repeat": 0}).bars
    assert (bots.name, bots.percent, bool(bots.detail)) == ("Bots", "80 %", True)
    assert (own.value, repeats.value) == (2, 0)
    assert panels.not_counted({"bot": 0, "own": 0, "repeat": 0}).bars == []


def test_hours_are_told_in_the_sites_zone() -> None:
    hourly = [
        {"hour": "2026-11-20T23:00:00+00:00", "views": 5},
        {"hour": "2026-11-21T00:00:00+00:00", "views": 1},
    ]
    assert panels.hours(hourly, UTC, is_wide=True).rows[-1] == ("Fri 20 Nov, 23:00", "5", "")
    berlin = panels.hours(hourly, ZoneInfo("Europe/Berlin"), is_wide=True)
    assert berlin.rows == [("Sat 21 Nov, 01:00", "1", "so far"), ("Sat 21 Nov, 00:00", "5", "")]


def test_identifiers_are_told_as_words() -> None:
    assert [panels.words(name) for name in ("payment_declined", "api", "none", "")] == [
        "Payment declined",
        "API",
        "Not told",
        "",
    ]


def test_spans_have_both_ends() -> None:
    assert panels.span_name(date(2026, 11, 15), date(2026, 11, 21)) == "Sun 15 Nov – Sat 21 Nov 2026"
    assert panels.span_name(date(2026, 11, 21), date(2026, 11, 21)) == "Sat 21 Nov 2026"
    assert panels.moment_name(None, UTC) == "–"
    assert panels.moment_name("2026-11-21T13:02:03+00:00", UTC) == "21 Nov 2026, 13:02"
