"""The most viewed by the heads of the days' lists: the same as adding up everything."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import IntegrityError

from footfall import days as event_days
from footfall import event_kinds, ranking
from footfall.definitions import BREAKDOWNS, COUNTS
from footfall.event import Kind
from footfall.ranking import VIEWS, VIEWS_AUTHENTICATED, VIEWS_OF_TYPE, Figure, most_viewed
from footfall.schema import DailyStats, Entity, RollupDay, SeenVisitor, ViewEventRow
from tests.integration.conftest import NOW

TODAY = NOW.date()
DAYS = [TODAY - timedelta(days=back) for back in range(3)]
NAMES = [*(("page", f"/{n}") for n in range(9)), ("book", "b1"), ("book", "b2"), ("book", "b3")]
Row = tuple[int, int, int]  # views, those of them by people signed in, those of the type "listing"
Event = tuple[int, bool, bool, int]  # the entity's place in NAMES, signed in, of the type "listing", visitor

# Small numbers and a few large ones: many equals, and some whose one good day decides
AMOUNTS = st.one_of(st.integers(0, 3), st.sampled_from([10, 30]))
ROWS = st.dictionaries(
    st.tuples(st.integers(0, len(NAMES) - 1), st.sampled_from(DAYS)),
    st.tuples(AMOUNTS, st.integers(0, 30), st.integers(0, 30)).map(
        lambda row: (row[0], min(row[0], row[1]), min(row[0], row[2]))
    ),
    max_size=len(NAMES) * len(DAYS),
)
EVENTS = st.lists(
    st.tuples(st.integers(0, len(NAMES) - 1), st.booleans(), st.booleans(), st.integers(0, 3)), max_size=12
)
SEEN = 0  # the visitor whom the daily rows have already


@pytest.mark.parametrize(
    ("figure", "place"), [(VIEWS, 0), (VIEWS_AUTHENTICATED, 1), (VIEWS_OF_TYPE, 2)], ids=["all", "in", "type"]
)
@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # what is found is small, and shrinking takes long
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=ROWS, events=EVENTS, limit=st.integers(1, 4), kind=st.sampled_from(["page", "page", "book"]))
def test_the_first_are_those_of_a_plain_count(
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    figure: Figure,
    place: int,
    rows: dict[tuple[int, date], Row],
    events: list[Event],
    limit: int,
    kind: str,
) -> None:
    monkeypatch.setattr(ranking, "HEAD", 1)
    monkeypatch.setattr(ranking, "DEEPER", 2)
    with connection.begin_nested() as example:
        keys = _fill(connection, rows, events)
        found = most_viewed(connection, kind, DAYS, figure, limit, "listing", has_visitors=True)
        example.rollback()
    views: Counter[str] = Counter()
    for (n, _), row in rows.items():
        views[NAMES[n][1]] += row[place]
    for n, *signed_in_and_listing, _ in events:
        views[NAMES[n][1]] += (True, *signed_in_and_listing)[place]
    of_kind = [(name, views[name]) for a_kind, name in NAMES if a_kind == kind and views[name]]
    expected = sorted(of_kind, key=lambda item: (-item[1], item[0]))[:limit]
    assert [(row.external_id, row.views) for row in found] == expected, keys
    if figure is VIEWS:
        assert {row.external_id: row.visitor_days for row in found} == {
            name: _visitor_days(name, rows, events) for name, _ in expected
        }


def test_most_days_are_not_read_to_their_ends(connection: Connection) -> None:
    """Three entities stand out on every day, so the heads of the lists decide."""
    rows = {(n, day): ((30, 0, 0) if n < 3 else (1, 0, 0)) for n in range(9) for day in DAYS}
    _fill(connection, rows, [])
    seen: list[Any] = []
    real = connection.execute

    def execute(statement: Any, parameters: Any = None) -> Any:
        seen.append((statement, parameters))
        return real(statement, parameters)

    connection.execute = execute  # type: ignore[method-assign, assignment]
    found = most_viewed(connection, "page", DAYS, VIEWS, 2)
    assert [row.external_id for row in found] == ["/0", "/1"]
    depths = [parameters["depth"] for statement, parameters in seen if statement is ranking.CANDIDATES]
    assert depths == [6], "no second try"


def test_daily_rows_of_another_type_are_refused(connection: Connection) -> None:
    _fill(connection, {(0, TODAY): (1, 0, 0)}, [])
    with pytest.raises(IntegrityError, match="daily_stats_entity_id_entity_type_fkey"):
        connection.execute(text("UPDATE daily_stats SET entity_type = 'book'"))


def _fill(
    connection: Connection, rows: dict[tuple[int, date], Row], events: Sequence[Event]
) -> dict[int, int]:
    """Store the rows as rolled up, and the events as today's that came after."""
    event_days.open_days(connection, DAYS)
    rolled = {"version": 0, "rolled_up_at": NOW, "visitors_kept": True}
    connection.execute(insert(RollupDay), [{"day": day, **rolled} for day in DAYS])
    made = insert(Entity).returning(Entity.id, sort_by_parameter_order=True)
    named = [{"entity_type": kind, "external_id": name, "created_at": NOW} for kind, name in NAMES]
    keys = dict(enumerate(connection.scalars(made, named)))
    nothing = {**dict.fromkeys(COUNTS, 0), **{name: {} for name in BREAKDOWNS}}
    daily = [
        {
            **nothing,
            "entity_id": keys[n],
            "entity_type": NAMES[n][0],
            "day": day,
            "unique_viewers": 1,
            "views": views,
            "views_authenticated": authenticated,
            "views_by_type": {"listing": listing},
        }
        for (n, day), (views, authenticated, listing) in rows.items()
    ]
    seen = [
        {"day": row["day"], "entity_id": row["entity_id"], "visitor": SEEN, "authenticated": False}
        for row in daily
    ]
    of_event = {"occurred_at": NOW, "day": TODAY, "entry": 1, "version": 1}
    kinds = {
        Kind(entity_type, "counted", "other", view_type, "web", "ZZ")
        for entity_type, _ in NAMES
        for view_type in ("listing", "intentional")
    }
    kind_ids = event_kinds.ensure(connection, kinds, TODAY)
    raw = [
        {
            **of_event,
            "id": UUID(int=place),
            "entity_id": keys[n],
            "authenticated": authenticated,
            "visitor": visitor,
            "kind_id": kind_ids[
                Kind(NAMES[n][0], "counted", "other", "listing" if is_listing else "intentional", "web", "ZZ")
            ],
        }
        for place, (n, authenticated, is_listing, visitor) in enumerate(events)
    ]
    for table, stored in ((DailyStats, daily), (SeenVisitor, seen), (ViewEventRow, raw)):
        if stored:
            connection.execute(insert(table), stored)
    if events:
        event_days.raise_versions(connection, [TODAY])
    return keys


def _visitor_days(name: str, rows: dict[tuple[int, date], Row], events: Sequence[Event]) -> int:
    rolled = {day for (n, day) in rows if NAMES[n][1] == name}
    new = {visitor for n, _, _, visitor in events if NAMES[n][1] == name}
    return len(rolled) + len(new - ({SEEN} if TODAY in rolled else set()))
