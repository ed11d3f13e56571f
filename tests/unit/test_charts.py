"""Charts: what is drawn follows the numbers, and nothing that is drawn needs an inline style or a script."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dashboard import charts
from api.dashboard.charts import Column

HEIGHT = 240
PLOT = HEIGHT - charts.TOP - charts.BOTTOM


def drawn(columns: list[Column], ticks: int = 10) -> ET.Element:
    """A chart, parsed: it has to be well-formed."""
    names = ("Views", "Visitors")[: len(columns[0].values)]
    return ET.fromstring(charts.columns("x", columns, names, "A label", height=HEIGHT, ticks=ticks))  # noqa: S314


def bars(chart: ET.Element, kind: str = "series-0") -> list[ET.Element]:
    return [one for one in chart.iter("rect") if kind in one.get("class", "").split()]


def height(bar: ET.Element) -> float:
    return float(bar.get("height", "nan"))


def test_bars_are_as_tall_as_their_numbers() -> None:
    chart = drawn([Column("Mon", "Mon", (100, 50)), Column("Tue", "Tue", (25, 0))])
    assert [height(bar) for bar in bars(chart)] == [PLOT, PLOT / 4]
    assert [height(bar) for bar in bars(chart, "series-1")] == [PLOT / 2, 0]


def test_one_view_among_thousands_is_seen_and_none_is_not() -> None:
    one, none, _ = bars(drawn([Column("a", "", (1,)), Column("b", "", (0,)), Column("c", "", (90_000,))]))
    assert height(one) == charts.LEAST_BAR
    assert height(none) == 0


def test_a_gap_is_hatched_and_named_once_and_is_no_zero() -> None:
    gap = [Column("Tue", "", (0,), gap=True), Column("Wed", "", (3,), gap=True)]
    chart = drawn([Column("Mon", "", (7,)), *gap, Column("Thu", "", (0,))])
    hatched = [one for one in chart.iter("rect") if one.get("class") == "gap"]
    assert [(height(one), one.get("fill")) for one in hatched] == [(PLOT, "url(#x-hatch)")] * 2
    assert [one.text for one in chart.iter("text")].count("gap") == 1
    titles = [one.text or "" for one in chart.iter("title")]
    assert ["not counted for a while" in title for title in titles] == [False, True, True, False]


def test_a_day_that_is_not_over_says_so() -> None:
    chart = drawn([Column("Mon", "", (7,)), Column("Tue", "", (2,), is_open=True)])
    assert [one.text for one in chart.iter("title")] == ["Mon\nViews: 7", "Tue\nViews: 2\nso far"]
    assert ["open" in bar.get("class", "") for bar in bars(chart)] == [False, True]


@pytest.mark.parametrize(("count", "wide", "narrow"), [(7, 7, 4), (24, 8, 4), (30, 10, 5), (1, 1, 1)])
def test_the_last_column_is_named_and_no_more_than_fit(count: int, wide: int, narrow: int) -> None:
    chart = drawn([Column(str(n), f"tick {n}", (n,)) for n in range(count)])
    ticks = [one for one in chart.iter("text") if (one.text or "").startswith("tick ")]
    assert len(ticks) == wide
    assert len([one for one in ticks if one.get("class") == "tick"]) == narrow
    assert (ticks[-1].text, ticks[-1].get("class")) == (f"tick {count - 1}", "tick")


def test_what_is_drawn_is_escaped_and_has_no_inline_style() -> None:
    columns = [Column('<script>"&', "<b>", (1,))]
    markup = charts.columns('"x', columns, ("<i>",), '"><script>', height=HEIGHT, ticks=9)
    assert "<script" not in markup
    assert "<b>" not in markup
    assert "<i>" not in markup
    assert "style=" not in markup


def test_a_strip_is_as_tall_as_its_largest() -> None:
    strip = ET.fromstring(charts.strip([("12:00", 4), ("12:01", 2), ("12:02", 0)], "Now", height=56))  # noqa: S314
    assert [height(bar) for bar in bars(strip)] == [56, 28, 0]
    assert [one.text for one in strip.iter("title")] == ["12:00: 4", "12:01: 2", "12:02: 0"]


def test_a_strip_of_nothing_is_flat() -> None:
    strip = ET.fromstring(charts.strip([("12:00", 0)] * 30, "Now", height=56))  # noqa: S314
    assert {height(bar) for bar in bars(strip)} == {0}


@given(st.integers(0, 10**12))
def test_scales_hold_the_largest_in_two_to_four_round_steps(largest: int) -> None:
    lines = charts.scale(largest)
    steps = {after - before for before, after in zip(lines, lines[1:], strict=False)}
    (step,) = steps
    assert lines[0] == 0
    assert lines[-1] >= largest
    assert 3 <= len(lines) <= 5
    assert str(step).rstrip("0") in {"1", "2", "5"}
    assert len(lines) == 3 or lines[-2] < largest  # no empty upper part


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1k"),
        (1_500, "1.5k"),
        (20_000, "20k"),
        (2_500_000, "2.5M"),
        (10**9, "1G"),
    ],
)
def test_axes_have_short_numbers(value: int, text: str) -> None:
    assert charts.compact(value) == text


def test_shares_are_of_the_largest() -> None:
    assert 'width="25.0%"' in charts.share(5, 20)
    assert 'width="0%"' in charts.share(0, 0)
