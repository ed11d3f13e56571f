"""What another site has counted so far: its tables of view counts, read as numbers of entities.

Read in one read-only snapshot and row by row, so that a table may be larger than memory. Bad rows are left
out and counted by reason; equal keys are added up.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any, Literal

import psycopg2
from psycopg2 import sql

from footfall import countries, fields
from footfall.content_types import CONTENT_TYPES, PAGE
from footfall.entities import Name
from footfall.errors import FootfallError, Invalid
from footfall.event import DEVICES, UNKNOWN_COUNTRY
from footfall.intake import DEFAULT_VIEW_TYPE

Layout = Literal["books", "counters", "daily"]
Dimension = Literal["total", "type", "country", "device", "viewers"]
LAYOUTS: tuple[Layout, ...] = ("books", "counters", "daily")

MOST_VIEWS = 2**53  # beyond it, what Redis compares is not exact
FETCH_ROWS = 5_000
URL = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
DAILY_SUFFIX = "statsdaily"
ALL_VIEWERS = "-"  # the value of a dimension that has none

TABLES = """
    SELECT n.nspname, c.relname, array_agg(a.attname::text ORDER BY a.attnum),
        greatest(c.reltuples, 0)::bigint
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    GROUP BY n.nspname, c.relname, c.reltuples ORDER BY 1, 2
"""
# Said in the transaction, because a pooler in between takes no options
READ_AT_LEISURE = (
    "SET LOCAL timezone = 'UTC'",
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
)


class SourceError(FootfallError):
    """The other site's database cannot be read, or has no table of a known layout."""

    code = "source"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a known layout; `columns` are {plain name: the name that it has there}."""

    layout: Layout
    schema: str
    name: str
    columns: Mapping[str, str]
    entity_type: str | None  # of all its rows; None when each row says it
    rows: int  # about


@dataclass(frozen=True, slots=True)
class Cell:
    """A number: how many views of an entity were counted under a value; of a day, or of all time."""

    name: Name
    day: date | None
    dimension: Dimension
    value: str
    count: int
    first: datetime | None = None
    last: datetime | None = None


@dataclass(slots=True)
class Reading:
    """What became of a table's rows."""

    rows: int = 0
    duplicates: int = 0  # rows that were added to another one of the same key
    left_out: Counter[str] = field(default_factory=Counter)  # rows, by reason


@dataclass(frozen=True, slots=True)
class Source:
    """An open connection, and what was found behind it."""

    connection: Any
    fingerprint: str  # of the database's address, without who asks and with which password
    tables: tuple[Table, ...]
    notes: tuple[str, ...]  # tables that look like one and are not read, and why

    def cells(self, table: Table, reading: Reading, read: Callable[[int], None]) -> Iterator[Cell]:
        """The numbers of a table; `reading` is filled in, and `read` told how many rows have been read."""
        statement = _statement(table)
        try:
            with self.connection.cursor(name="adopted") as cursor:
                cursor.itersize = FETCH_ROWS
                cursor.execute(statement)
                for row in cursor:
                    before = reading.rows
                    yield from _cells(table, row, reading)
                    read(reading.rows - before)
        except psycopg2.Error as error:
            raise SourceError(f"{table.name} cannot be read: {_first_line(error)}") from error


@contextmanager
def open_source(url: str, layout: str, entity_type: str | None, schema: str | None) -> Iterator[Source]:
    """Connect and look for tables of `layout`, or of any for "auto". Raises `SourceError`."""
    if not URL.match(url):
        raise SourceError("--from must be a PostgreSQL address: postgresql://user:password@host/database")
    plain = URL.sub("postgresql://", url, count=1)
    try:
        connection = psycopg2.connect(plain, connect_timeout=10, application_name="footfall adopt")
    except psycopg2.Error as error:
        raise SourceError(f"the other site's database does not answer: {_first_line(error)}") from error
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        tables, notes = _find(connection, layout, entity_type, schema)
        yield Source(connection, _fingerprint(connection), tables, notes)
    finally:
        connection.close()


def _fingerprint(connection: Any) -> str:
    place = connection.get_dsn_parameters()
    host = place.get("host", "").lower()
    address = "\0".join((host, place.get("port", "5432"), place["dbname"]))
    return hashlib.sha256(address.encode()).hexdigest()[:16]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# Finding


def _plain(name: str) -> str:
    """One spelling for view_count, viewCount and ViewCount."""
    return name.replace("_", "").lower()


def _find(
    connection: Any, layout: str, entity_type: str | None, schema: str | None
) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    with connection.cursor() as cursor:
        for setting in READ_AT_LEISURE:
            cursor.execute(setting)
        cursor.execute(TABLES)
        present = [row for row in cursor.fetchall() if schema in (None, row[0])]
    tables: list[Table] = []
    notes: list[str] = []
    for in_schema, name, columns, rows in present:
        known = {_plain(column): column for column in columns}
        of = _layout(_plain(name))
        if of is None or layout not in ("auto", of):
            continue
        try:
            kind = _entity_type(of, name, known, entity_type)
            tables.append(Table(of, in_schema, name, known, kind, rows))
        except SourceError as error:
            notes.append(str(error))
    _refuse_two_alike(tables)
    if not tables:
        names = ", ".join(name for _, name, _, _ in present[:30]) or "no tables"
        said = "".join(f"; {note}" for note in notes)
        raise SourceError(
            f"no table of {'a known layout' if layout == 'auto' else f'the layout {layout}'} is there{said}. "
            "Known are book_view_statistics (books), ViewCounterTotal and ViewCounterDaily (counters), "
            f"<type>_stats_daily (daily). There is: {names}"
        )
    # totals before days, as one would read them
    return tuple(sorted(tables, key=lambda table: "total" not in table.columns)), tuple(notes)


def _layout(plain_name: str) -> Layout | None:
    if plain_name == "bookviewstatistics":
        return "books"
    if plain_name in ("viewcountertotal", "viewcounterdaily"):
        return "counters"
    return "daily" if plain_name.endswith(DAILY_SUFFIX) else None


def _entity_type(layout: Layout, name: str, columns: Mapping[str, str], told: str | None) -> str | None:
    """Checks the columns too. Raises `SourceError`."""
    if layout == "books":
        _need(name, columns, "bookid", "viewtype", "viewcount")
        return told or "book"
    if layout == "counters":
        _need(name, columns, "key", *(("total",) if _plain(name).endswith("total") else ("day", "count")))
        return None
    _need(name, columns, "date", "totalviews")
    kind = _plain(name).removesuffix(DAILY_SUFFIX)
    if f"{kind}id" not in columns:
        raise SourceError(f"{name} is left out: it has no column {name[: -len('_stats_daily')]}_id")
    by_name = {_plain(each): each for each in CONTENT_TYPES}
    if told is None and kind not in by_name:
        raise SourceError(f"{name} is left out: say what its entities are with --entity-type")
    return told or by_name[kind]


def _need(name: str, columns: Mapping[str, str], *needed: str) -> None:
    missing = [each for each in needed if each not in columns]
    if missing:
        has = ", ".join(columns.values())
        raise SourceError(f"{name} is left out: it has no column {', '.join(missing)}, but {has}")


def _refuse_two_alike(tables: Sequence[Table]) -> None:
    alike = Counter(_plain(table.name) for table in tables)
    for table in tables:
        if alike[_plain(table.name)] > 1:
            places = [f"{t.schema}.{t.name}" for t in tables if _plain(t.name) == _plain(table.name)]
            raise SourceError(f"there are {' and '.join(places)}; say which with --schema")


# Reading


def _statement(table: Table) -> sql.Composed:
    """One row a key: type, id, view type, day, the sum of the good rows, how many rows there are and how
    many of them are bad, the earliest and the latest moment, breakdowns, viewers.
    """
    parts = _books(table) if table.layout == "books" else _counters(table)
    if table.layout == "daily":
        parts = _daily(table)
    return sql.SQL("""
        SELECT {entity_type}, {id}, {view_type}, {day}, sum({count}) FILTER (WHERE {good}), count(*),
            count(*) FILTER (WHERE {count} IS NULL), count(*) FILTER (WHERE {count} < 0),
            count(*) FILTER (WHERE {count} >= 0 AND NOT {good}), min({first}), max({last}),
            {by_type}, {by_country}, {by_device}, {viewers}
        FROM {table} GROUP BY 1, 2, 3, 4
    """).format(
        **{
            **dict.fromkeys(("view_type", "day", "by_type", "by_country", "by_device", "viewers"), NOTHING),
            **parts,
            "good": GOOD.format(count=parts["count"]),
            "table": sql.Identifier(table.schema, table.name),
        }
    )


NOTHING = sql.SQL("NULL")
GOOD = sql.SQL("({count} BETWEEN 0 AND 1e18 AND {count} = trunc({count}))")
MOMENT = sql.SQL("CASE WHEN {0} BETWEEN '1970-01-01' AND '2200-01-01' THEN {0} END")
JSON_ROWS = sql.SQL("array_agg({}::text) FILTER (WHERE {} IS NOT NULL)")

Parts = dict[str, sql.Composable]


def _column(table: Table, *plain: str) -> sql.Composable:
    """The first of these columns that is there; NULL without any."""
    for name in plain:
        if name in table.columns:
            return sql.Identifier(table.columns[name])
    return NOTHING


def _number(table: Table, plain: str) -> sql.Composable:
    return sql.SQL("{}::numeric").format(_column(table, plain))


def _moment(table: Table, *plain: str) -> sql.Composable:
    column = _column(table, *plain)
    return sql.SQL("NULL::timestamp") if column is NOTHING else MOMENT.format(column)


def _books(table: Table) -> Parts:
    return {
        "entity_type": sql.Literal(table.entity_type),
        "id": sql.SQL("{}::text").format(_column(table, "bookid")),
        "view_type": sql.SQL("{}::text").format(_column(table, "viewtype")),
        "count": _number(table, "viewcount"),
        "first": _moment(table, "createdat", "lastviewedat"),
        "last": _moment(table, "lastviewedat", "updatedat"),
    }


def _counters(table: Table) -> Parts:
    """The key is "<namespace>:<id>"; where the columns say the same, they go before it."""
    key = sql.SQL("regexp_replace({}::text, '^views:', '')").format(_column(table, "key"))
    of_key = sql.SQL("CASE WHEN {0} ~ ':' THEN {1} END")
    namespace = of_key.format(key, sql.SQL("split_part({}, ':', 1)").format(key))
    rest = of_key.format(key, sql.SQL("substr({0}, strpos({0}, ':') + 1)").format(key))
    first_of = sql.SQL("coalesce(nullif({}::text, ''), {})")
    has_total = "total" in table.columns
    path = first_of.format(_column(table, "path"), rest)
    kind = first_of.format(_column(table, "namespace"), namespace)
    other = first_of.format(_column(table, "entityid"), rest)
    page = sql.Literal(PAGE.name)
    return {
        "entity_type": kind,
        "id": sql.SQL("CASE WHEN {} = {} THEN {} ELSE {} END").format(kind, page, path, other),
        "day": NOTHING if has_total else _day(table, "day"),
        "count": _number(table, "total" if has_total else "count"),
        "first": _moment(table, "createdat") if has_total else sql.SQL("NULL::timestamp"),
        "last": _moment(table, "updatedat") if has_total else sql.SQL("NULL::timestamp"),
    }


def _daily(table: Table) -> Parts:
    kind = _plain(table.name).removesuffix(DAILY_SUFFIX)

    def rows_of(plain: str) -> sql.Composable:
        column = _column(table, plain)
        return NOTHING if column is NOTHING else JSON_ROWS.format(column, column)

    viewers = _column(table, "uniqueviewers", "uniquevisitors")
    return {
        "entity_type": sql.Literal(table.entity_type),
        "id": sql.SQL("{}::text").format(_column(table, f"{kind}id")),
        "day": _day(table, "date"),
        "count": _number(table, "totalviews"),
        "first": sql.SQL("NULL::timestamp"),
        "last": sql.SQL("NULL::timestamp"),
        "by_type": rows_of("viewsbytype"),
        "by_country": rows_of("viewsbycountry"),
        "by_device": rows_of("viewsbydevice"),
        "viewers": NOTHING if viewers is NOTHING else sql.SQL("sum({}::numeric)").format(viewers),
    }


def _day(table: Table, plain: str) -> sql.Composable:
    # as text: a date of PostgreSQL may be none of Python
    return sql.SQL("to_char({}, 'YYYY-MM-DD')").format(_column(table, plain))


def _cells(table: Table, row: Sequence[Any], reading: Reading) -> Iterator[Cell]:
    kind, external_id, view_type, day_text, count, rows, none, negative, odd, first, last, *more = row
    reading.rows += rows
    for reason, bad in (("no count", none), ("negative count", negative), ("no whole number", odd)):
        if bad:
            reading.left_out[reason] += bad
    good = rows - none - negative - odd
    if not good:
        return
    try:
        name, view_type = _name(kind, external_id, view_type)
        day = None if day_text is None and not _is_daily(table) else _date(day_text)
        if count > MOST_VIEWS:
            raise Invalid("count", "too large")
    except Invalid as error:
        reading.left_out[str(error)] += good
        return
    reading.duplicates += good - 1
    views = int(count)
    if day is None:
        yield Cell(name, None, "total", view_type, views, _aware(first), _aware(last))
    else:
        yield from _of_day(table, name, day, views, more)


def _is_daily(table: Table) -> bool:
    return table.layout == "daily" or "day" in table.columns


def _name(kind: str | None, external_id: str | None, view_type: str | None) -> tuple[Name, str]:
    if not kind:
        raise Invalid("type", "missing")
    if not external_id:
        raise Invalid("id", "missing")
    content_type = fields.content_type(kind, "type")
    name = (content_type.name, fields.external_id(content_type, external_id, "id"))
    return name, fields.view_type(content_type, view_type or DEFAULT_VIEW_TYPE, "view type")


def _date(value: str | None) -> date:
    if value is None:
        raise Invalid("day", "missing")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise Invalid("day", "not in the calendar") from None


def _aware(moment: datetime | None) -> datetime | None:
    """A moment without an offset is in UTC, as both frameworks that make such columns write it."""
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _of_day(table: Table, name: Name, day: date, views: int, more: Sequence[Any]) -> Iterator[Cell]:
    by_type, by_country, by_device, viewers = more
    content_type = CONTENT_TYPES[name[0]]

    def is_view_type(value: str) -> bool:
        try:
            return bool(fields.view_type(content_type, value, "view type"))
        except Invalid:
            return False

    types = _breakdown(by_type, views, is_view_type, DEFAULT_VIEW_TYPE)
    places = _breakdown(by_country, views, lambda value: countries.code(value) == value, UNKNOWN_COUNTRY)
    devices = _breakdown(by_device, views, DEVICES.__contains__, "other") if by_device else {}
    if table.layout == "daily":  # which has no totals but these
        at = datetime.combine(day, time(), UTC)
        for value, n in types.items():
            yield Cell(name, day, "total", value, n, at, at)
    breakdowns: dict[Dimension, dict[str, int]] = {"type": types, "country": places, "device": devices}
    for dimension, values in breakdowns.items():
        for value, n in values.items():
            yield Cell(name, day, dimension, value, n)
    if viewers is not None and viewers.is_finite() and viewers > 0:
        yield Cell(name, day, "viewers", ALL_VIEWERS, min(int(viewers), views))


def _breakdown(
    texts: Sequence[str] | None, views: int, is_known: Callable[[str], bool], rest: str
) -> dict[str, int]:
    """{value: views} that add up to `views`: what is missing is under `rest`; all is, when it is too much."""
    found: Counter[str] = Counter()
    for text in texts or ():
        try:
            values = json.loads(text)
        except ValueError:
            continue
        for value, n in values.items() if isinstance(values, dict) else ():
            if isinstance(n, int) and not isinstance(n, bool) and n > 0:
                found[value if is_known(value) else rest] += n
    missing = views - found.total()
    if missing < 0:
        found, missing = Counter(), views
    if missing:
        found[rest] += missing
    return dict(found)
