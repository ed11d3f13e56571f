"""Taking over what another site has counted: into the counters' sealed part, and into days of before.

What was taken is remembered number by number (`adoptions`), so that a second run adds only what the source
has counted meanwhile, and a run that was interrupted goes on. Nothing is ever lowered.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from io import StringIO
from itertools import islice
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, TextClause, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.types import Date

from footfall import counts, days, entities, ledger, schema_check, stream
from footfall.clock import day_start, site_day
from footfall.definitions import BREAKDOWNS, COUNTS, FIGURE_COLUMNS
from footfall.errors import FootfallError, SchemaError
from footfall.other_site import Cell, Reading, Source, Table
from footfall.retention import OLDEST_ENTRY
from footfall.rollup import ADD_TO_ROW
from footfall.schema import EventDay, RollupDay
from footfall.settings import Settings
from footfall.writer import ATTEMPTS, RETRYABLE

STAGED_CELLS = 5_000  # a COPY
CHUNK_ENTITIES = 1_000  # a transaction's size: while it runs, writers of the same counters wait

# Two at once would both add what neither has remembered yet; any number that nobody else uses
ADOPTION_LOCK = text("SELECT pg_try_advisory_lock(7108623)")
LOCK_NOT_AVAILABLE = "55P03"
# An event's id reaches back a day, so a view of yesterday may still come
DAYS_STILL_OPEN = 1

OWN_DAY = "Footfall has events of its own"
OPEN_DAY = "may still get views; run this again later"
PAST_DAY = "older than daily rows are kept"
QUEUED_DAY = "views that are over a day old still wait in the queue"
READ_DAY = "is being read; run this again"

CREATE_STAGED = text("""
    CREATE TEMP TABLE staged (entity_type text, external_id text, day date, dimension text, value text,
                              count bigint, first_at timestamptz, last_at timestamptz)
""")
COPY_STAGED = "COPY staged FROM STDIN WITH (FORMAT csv)"
# Different spellings of the source can be the same entity here, so they are added up once more
MERGE = (
    text("""
    CREATE TEMP TABLE names AS
    SELECT row_number() OVER (ORDER BY entity_type, external_id) AS n, entity_type, external_id,
        min(first_at) AS first_at
    FROM staged GROUP BY entity_type, external_id
"""),
    text("""
    CREATE TEMP TABLE cells AS
    SELECT n, day, dimension, value, coalesce(to_char(day, 'YYYY-MM-DD '), '') || dimension AS part,
        CAST(sum(count) AS bigint) AS count, min(staged.first_at) AS first_at, max(last_at) AS last_at
    FROM staged JOIN names USING (entity_type, external_id)
    GROUP BY n, day, dimension, value
"""),
    text("CREATE INDEX ON cells (n)"),
    text("CREATE UNIQUE INDEX ON names (n)"),
    text("ANALYZE names"),
    text("ANALYZE cells"),
)
DROP_STAGED = text("DROP TABLE IF EXISTS staged, names, cells")

OTHER_ADDRESSES = text("""
    SELECT EXISTS (
        SELECT FROM adoptions
        WHERE source <> :source AND split_part(source, '/', 2) = split_part(:source, '/', 2)
    )
""")
DAYS_FOUND = text("SELECT DISTINCT day FROM cells WHERE dimension = 'type' ORDER BY day")
# A dry run makes no entities, and still must not call one new in every table
CREATE_SEEN = text("CREATE TEMP TABLE seen (entity_type text, external_id text)")
NOTE_SEEN = text("INSERT INTO seen SELECT entity_type, external_id FROM names EXCEPT SELECT * FROM seen")
KNOWN = text("""
    SELECT count(*) FILTER (WHERE e.id IS NULL AND seen.external_id IS NULL) AS new,
        count(*) FILTER (WHERE e.deleted_at IS NULL AND coalesce(e.external_id, seen.external_id) IS NOT NULL)
            AS known,
        count(*) FILTER (WHERE e.deleted_at IS NOT NULL) AS deleted
    FROM names LEFT JOIN entities AS e USING (entity_type, external_id)
    LEFT JOIN seen USING (entity_type, external_id)
""")
# What the source has counted above what is remembered of it
ABOVE = """
    FROM cells AS c JOIN names USING (n)
    {join} entities AS e ON e.entity_type = names.entity_type AND e.external_id = names.external_id
    LEFT JOIN adoptions AS a
        ON a.source = :source AND a.entity_id = e.id AND a.part = c.part AND a.value = c.value
    WHERE e.deleted_at IS NULL AND c.count > coalesce(a.count, 0)
      AND (c.dimension = 'total' OR c.day = ANY(:taken))
"""
TAKEN = bindparam("taken", type_=ARRAY(Date))
ADDED = text(f"""
    SELECT c.dimension, c.day, CAST(sum(c.count - coalesce(a.count, 0)) AS bigint) AS more
    {ABOVE.format(join="LEFT JOIN")} GROUP BY 1, 2
""").bindparams(TAKEN)  # noqa: S608 - constants
BEFORE = text("""
    SELECT CAST(coalesce(sum(v.count), 0) AS bigint)
    FROM (SELECT DISTINCT n, value FROM cells WHERE dimension = 'total') AS c JOIN names USING (n)
    JOIN entities AS e USING (entity_type, external_id)
    JOIN view_counters AS v ON v.entity_id = e.id AND v.view_type = c.value
    WHERE e.deleted_at IS NULL
""")

# Made as of before today: the day's cap is on what viewers bring
INSERT_ENTITIES = text("""
    INSERT INTO entities (entity_type, external_id, created_at)
    SELECT entity_type, external_id, least(first_at, :before_today) FROM names
    WHERE n BETWEEN :first AND :last AND NOT EXISTS (
        SELECT FROM entities AS e
        WHERE e.entity_type = names.entity_type AND e.external_id = names.external_id
    )
    ORDER BY entity_type, external_id
    ON CONFLICT DO NOTHING
""")
TAKE_MORE = text(f"""
    CREATE TEMP TABLE more ON COMMIT DROP AS
    SELECT e.id AS entity_id, e.entity_type, c.day, c.dimension, c.value, c.part, c.count,
        c.first_at, c.last_at, c.count - coalesce(a.count, 0) AS more
    {ABOVE.format(join="JOIN")} AND c.n BETWEEN :first AND :last
""").bindparams(TAKEN)  # noqa: S608 - constants
# `adoptions` grows by the million while its statistics still say that it is empty; every join has its index
BY_INDEX = text("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
# In key order, as the writer does it
RAISE_COUNTERS = text("""
    INSERT INTO view_counters AS c (entity_id, view_type, count, sealed, first_viewed_at, last_viewed_at,
                                    created_at, updated_at)
    SELECT entity_id, value, CAST(sum(more) AS bigint), CAST(sum(more) AS bigint),
        least(coalesce(min(first_at), min(last_at)), :now),
        least(coalesce(max(last_at), max(first_at), :now), :now),
        least(min(first_at), :now), :now
    FROM more WHERE dimension = 'total'
    GROUP BY entity_id, value ORDER BY entity_id, value
    ON CONFLICT (entity_id, view_type) DO UPDATE SET
        count = c.count + excluded.count,
        sealed = c.sealed + excluded.sealed,
        first_viewed_at = least(c.first_viewed_at, excluded.first_viewed_at),
        last_viewed_at = greatest(c.last_viewed_at, excluded.last_viewed_at),
        created_at = least(c.created_at, excluded.created_at),
        updated_at = excluded.updated_at
""")
# Also where a note stands already: held until the commit, so that no tick takes it before
NOTE_SHOWN_BEHIND = text("""
    INSERT INTO shown_behind (entity_id, view_type)
    SELECT DISTINCT entity_id, value FROM more WHERE dimension = 'total' ORDER BY 1, 2
    ON CONFLICT (entity_id, view_type) DO UPDATE SET view_type = excluded.view_type
""")
REMEMBER = text("""
    INSERT INTO adoptions (source, entity_id, part, value, count)
    SELECT :source, entity_id, part, value, count FROM more
    ON CONFLICT (source, entity_id, part, value) DO UPDATE SET count = excluded.count
""")
VIEWS_OF_DAYS = text("""
    SELECT day, CAST(sum(more) AS bigint) AS views FROM more WHERE dimension = 'type' GROUP BY day
""")


class AdoptionRefused(FootfallError):
    """Going on would count something twice."""

    code = "adoption_refused"


@dataclass(slots=True)
class Report:
    """What was found in a table, and what was (or with a dry run would be) taken over."""

    table: Table
    reading: Reading = field(default_factory=Reading)
    new: int = 0  # entities
    known: int = 0
    deleted: int = 0  # here; nothing is taken of them
    before: int = 0  # all-time views of what is in the table
    added: int = 0
    has_totals: bool = False
    views_of_days: dict[date, int] = field(default_factory=dict)  # of the days that are taken
    skipped: dict[date, str] = field(default_factory=dict)  # {day: why}


Progress = Callable[[str, int, int], None]  # a step, how much of it was just done, how much it has about


def adopt(
    engine: Engine,
    redis: Redis,
    settings: Settings,
    source: Source,
    now: datetime,
    *,
    dry_run: bool,
    is_another_site: bool = False,
    progress: Progress = lambda _step, _done, _length: None,
) -> list[Report]:
    """Take over every table of `source`, a table after the other; a report for each.

    Commits some entities at a time. May be run again, also after it was interrupted. Raises
    `AdoptionRefused` when the same tables came from another address, unless `is_another_site` says that
    these are different ones.
    """
    with engine.connect() as connection:
        # never back into the pool: the temporary tables and the lock end with it
        connection.detach()
        with connection.begin():
            problems = schema_check.problems(connection)
            alone = connection.scalar(ADOPTION_LOCK)
            connection.execute(CREATE_SEEN)
        if problems:
            raise SchemaError("; ".join(problems))
        if not alone:
            raise AdoptionRefused("another `footfall adopt` is running")
        reports = []
        for table in source.tables:
            one = _OneTable(connection, redis, settings, source, table, now, progress)
            with one.staged(is_another_site):
                one.look()
                if not dry_run:
                    one.take()
            reports.append(one.report)
    if not dry_run:
        _show(engine, redis)
    return reports


def _show(engine: Engine, redis: Redis) -> None:
    """Raise the shown counts; if Redis is away, the next tick finds the notes."""
    try:
        counts.raise_noted(engine, redis)
    except RedisError:
        return


@dataclass(slots=True)
class _OneTable:
    connection: Connection
    redis: Redis
    settings: Settings
    source: Source
    table: Table
    now: datetime
    progress: Progress
    report: Report = field(init=False)
    names: int = 0
    taken: list[date] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.report = Report(self.table)

    @property
    def key(self) -> str:
        """What its numbers are remembered under."""
        return f"{self.source.fingerprint}/{self.table.name}/{self.table.schema}"

    @contextmanager
    def staged(self, is_another_site: bool) -> Iterator[None]:
        """Copy the source's numbers beside ours, for as long as this lasts."""
        with self.connection.begin():
            if not is_another_site and self.connection.scalar(OTHER_ADDRESSES, {"source": self.key}):
                raise AdoptionRefused(
                    f"{self.table.name} was adopted before, from another address. The same table under "
                    "another host, port or database name would be added a second time; if it is another "
                    "site's, say --another-site"
                )
            self.connection.execute(CREATE_STAGED)
        try:
            self._copy()
            with self.connection.begin():
                for statement in MERGE:
                    self.connection.execute(statement)
            yield
        finally:
            with self.connection.begin():
                self.connection.execute(DROP_STAGED)

    def look(self) -> None:
        """Fill in the report: nothing is changed."""
        report = self.report
        with self.connection.begin():
            known = self.connection.execute(KNOWN).one()
            report.new, report.known, report.deleted = known
            self.names = sum(known)
            self.connection.execute(NOTE_SEEN)
            self._choose_days(list(self.connection.scalars(DAYS_FOUND)))
            report.before = self.connection.scalar(BEFORE) or 0
            for row in self.connection.execute(ADDED, {"source": self.key, "taken": self.taken}):
                if row.dimension == "total":
                    report.added += row.more
                elif row.dimension == "type":
                    report.views_of_days[row.day] = row.more
        for day in self.taken:
            report.views_of_days.setdefault(day, 0)

    def take(self) -> None:
        """Write what `look` has found."""
        for day in list(self.taken):
            if not self._seal(day):
                self.taken.remove(day)
                self.report.views_of_days.pop(day, None)
        for first in range(1, self.names + 1, CHUNK_ENTITIES):
            last = first + CHUNK_ENTITIES - 1
            _again(self.connection, partial(self._take_chunk, first, last))
            self.progress(f"writing {self.table.name}", CHUNK_ENTITIES, self.names)

    def _copy(self) -> None:
        def read(rows: int) -> None:
            self.progress(f"reading {self.table.name}", rows, self.table.rows)

        cells = self.source.cells(self.table, self.report.reading, read)
        while part := list(islice(cells, STAGED_CELLS)):
            self.report.has_totals |= any(cell.dimension == "total" for cell in part)
            with self.connection.begin():
                _copy_cells(self.connection, part)

    def _choose_days(self, found: list[date]) -> None:
        """Days that are over, are still kept, and have no events of Footfall's own."""
        today = site_day(self.now, self.settings.time_zone)
        first_kept = today - timedelta(days=self.settings.daily_retention_days)
        query = select(EventDay.day).where(EventDay.day.in_(found), EventDay.version > 0)
        own = set(self.connection.scalars(query))
        queue_is_young = self._queue_is_young()
        for day in found:
            if day in own:
                self.report.skipped[day] = OWN_DAY
            elif day >= today - timedelta(days=DAYS_STILL_OPEN):
                self.report.skipped[day] = OPEN_DAY
            elif day < first_kept:
                self.report.skipped[day] = PAST_DAY
            elif not queue_is_young:
                self.report.skipped[day] = QUEUED_DAY
            else:
                self.taken.append(day)

    def _queue_is_young(self) -> bool:
        try:
            return stream.backlog(self.redis, self.now).oldest_seconds < OLDEST_ENTRY.total_seconds()
        except RedisError:
            return False

    def _seal(self, day: date) -> bool:
        """Make `day` one whose raw rows are gone: its daily rows are all there is, and it takes no events."""
        try:
            with self.connection.begin():
                self.connection.execute(days.LOCK_TIMEOUT)
                self.connection.execute(days.DAYS_LOCK)
                row = self.connection.execute(
                    select(EventDay.version, EventDay.sealed_at).where(EventDay.day == day).with_for_update()
                ).one_or_none()
                if row is not None and row.version > 0:
                    self.report.skipped[day] = OWN_DAY  # they came just now
                    return False
                self._seal_empty(day, is_open=row is not None and row.sealed_at is None, is_new=row is None)
                return True
        except OperationalError as error:
            if _sqlstate(error) != LOCK_NOT_AVAILABLE:
                raise
            self.report.skipped[day] = READ_DAY
            return False

    def _seal_empty(self, day: date, *, is_open: bool, is_new: bool) -> None:
        if is_open:
            days.seal(self.connection, day, self.now)
        if is_new:
            sealed = {"version": 0, "removed_at_version": 0, "sealed_at": self.now}
            self.connection.execute(insert(EventDay).values(day=day, **sealed))
        rolled = {"version": 0, "rolled_up_at": self.now, "visitors_kept": False}
        statement = insert(RollupDay).values(day=day, **rolled)
        self.connection.execute(statement.on_conflict_do_update(index_elements=["day"], set_=rolled))

    def _take_chunk(self, first: int, last: int) -> None:
        connection = self.connection
        zone = self.settings.time_zone
        before_today = day_start(site_day(self.now, zone), zone) - timedelta(seconds=1)
        chunk: dict[str, Any] = {"first": first, "last": last}
        connection.execute(entities.HOLD_OFF_DELETIONS)
        connection.execute(INSERT_ENTITIES, {**chunk, "before_today": before_today})
        connection.execute(BY_INDEX)
        connection.execute(TAKE_MORE, {**chunk, "source": self.key, "taken": self.taken})
        connection.execute(RAISE_COUNTERS, {"now": self.now})
        connection.execute(NOTE_SHOWN_BEHIND)
        connection.execute(ADD_ROWS)
        connection.execute(ADD_SITE_ROWS, {"site": entities.site(connection).id})
        of_days = {row.day: row.views for row in connection.execute(VIEWS_OF_DAYS)}
        # they were taken and written elsewhere: the day's ledger goes on balancing
        ledger.add(connection, {(d, name): n for d, n in of_days.items() for name in ("accepted", "settled")})
        connection.execute(REMEMBER, {"source": self.key})


def _copy_cells(connection: Connection, cells: Iterable[Cell]) -> None:
    lines = StringIO()
    # an empty field is a NULL; none of the texts is empty
    csv.writer(lines).writerows(
        (*cell.name, cell.day, cell.dimension, cell.value, cell.count, cell.first, cell.last)
        for cell in cells
    )
    lines.seek(0)
    cursor: Any = connection.connection.cursor()
    cursor.copy_expert(COPY_STAGED, lines)
    cursor.close()


def _again(connection: Connection, work: Callable[[], None]) -> None:
    """Do `work` in a transaction, again when a deadlock with a writer ended it."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with connection.begin():
                work()
            return
        except DBAPIError as error:
            if _sqlstate(error) not in RETRYABLE or attempt == ATTEMPTS:
                raise


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "pgcode", None) or ""


def _rows(key: str, condition: str, *, has_viewers: bool) -> TextClause:
    """Add what `more` holds to daily rows; what the source does not tell is 0 or nothing."""
    figures = {
        **dict.fromkeys(COUNTS, "0"),
        **dict.fromkeys(BREAKDOWNS, "CAST('{}' AS jsonb)"),
        "views": "coalesce(CAST(sum(more) FILTER (WHERE dimension = 'type') AS bigint), 0)",
    }
    if has_viewers:
        figures["unique_viewers"] = (
            "coalesce(CAST(sum(more) FILTER (WHERE dimension = 'viewers') AS bigint), 0)"
        )
    for name in ("type", "country", "device"):
        figures[f"views_by_{name}"] = (
            f"coalesce(jsonb_object_agg(value, more) FILTER (WHERE dimension = '{name}'), '{{}}')"
        )
    statement = f"""
        INSERT INTO daily_stats AS d (entity_id, entity_type, day, {FIGURE_COLUMNS})
        SELECT entity_id, entities.entity_type, day,
            {", ".join(figures[name] for name in (*COUNTS, *BREAKDOWNS))}
        FROM (
            SELECT {key} AS entity_id, day, dimension, value, CAST(sum(more) AS bigint) AS more
            FROM more WHERE dimension <> 'total' {condition}
            GROUP BY 1, 2, 3, 4
        ) AS summed JOIN entities ON entities.id = entity_id
        GROUP BY entity_id, entities.entity_type, day ORDER BY entity_id, day
        ON CONFLICT (entity_id, day) DO UPDATE SET {ADD_TO_ROW}
    """  # noqa: S608 - constants
    return text(statement)


ADD_ROWS = _rows("entity_id", "", has_viewers=True)
# The site's views are those of its pages. Who visited several of them is not known, so its visitors are not.
ADD_SITE_ROWS = _rows("CAST(:site AS integer)", "AND entity_type = 'page'", has_viewers=False)
