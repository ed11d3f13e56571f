"""The tables. `view_events` is the truth for its days, `daily_stats` for the days before."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

PARTITION_PREFIX = "view_events_"
SITE_TYPE = "site"  # the whole site is an entity, so that its daily rows are rows like any others
SITE_EXTERNAL_ID = "site"


class Base(DeclarativeBase):
    """The models' root: columns are NOT NULL unless typed otherwise, every moment carries its offset."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_unique",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "ix": "%(table_name)s_%(column_0_N_name)s_index",
            "ck": "%(table_name)s_%(constraint_name)s_check",
        }
    )
    type_annotation_map = {
        str: Text,
        bytes: LargeBinary,
        date: Date,
        datetime: DateTime(timezone=True),
        UUID: Uuid,
        dict[str, Any]: JSONB,
    }


class Site(Base):
    """What there is one of: the time zone, which the first start decides for good; the last sign of life."""

    __tablename__ = "site"
    __table_args__ = (CheckConstraint("only_row", name="only_row"),)

    only_row: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    time_zone: Mapped[str]
    last_alive_at: Mapped[datetime | None]  # when an API process last said that it takes views


class Gap(Base):
    """A time in which no API process lived: fewer views then are no quiet, but unknown."""

    __tablename__ = "gaps"

    started_at: Mapped[datetime] = mapped_column(primary_key=True)
    ended_at: Mapped[datetime]


class Salt(Base):
    """The random part of a day's visitor keys; deleted when the day can take no more events."""

    __tablename__ = "salts"

    day: Mapped[date] = mapped_column(primary_key=True)
    salt: Mapped[bytes]
    created_at: Mapped[datetime]


class Entity(Base):
    """Something that is viewed: a page, a book, a post, the site itself."""

    __tablename__ = "entities"
    __table_args__ = (
        UniqueConstraint("entity_type", "external_id"),
        UniqueConstraint("id", "entity_type"),  # what daily rows refer to
        # how many new pages a day has seen, without reading all of them
        Index(None, "entity_type", "created_at"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    entity_type: Mapped[str] = mapped_column(String(40))
    external_id: Mapped[str]
    owner_id: Mapped[str | None]
    title: Mapped[str | None]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("entities.id", ondelete="SET NULL"))
    reactions: Mapped[dict[str, Any] | None]  # {emoji: how many}, as the host site last said
    comments: Mapped[int | None]


class EventDay(Base):
    """A day that has a partition, and how often its raw rows have changed. Sealed: dropped for good."""

    __tablename__ = "event_days"

    day: Mapped[date] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    removed_at_version: Mapped[int] = mapped_column(BigInteger)  # when an erasure last took rows away
    sealed_at: Mapped[datetime | None]


class RollupDay(Base):
    """The version of a day that its daily rows hold. Equal to the day's own: clean."""

    __tablename__ = "rollup_days"

    day: Mapped[date] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    rolled_up_at: Mapped[datetime]
    visitors_kept: Mapped[bool]  # in `seen_visitors`, so that later events can be added to the daily rows


class SeenRun(Base):
    """Who was counted in the daily row of an entity, or of the site, when its day was rolled up as a whole:
    some visitors a row, in order, from `first` to before the next row's. A row for each would cost twenty
    times as much to write. Who was signed in stands in two rows: among everybody, and among their like.
    """

    __tablename__ = "seen_runs"
    __table_args__ = (UniqueConstraint("day", "entity_id", "authenticated", "first"),)
    __mapper_args__ = {"primary_key": ["day", "entity_id", "authenticated", "first"]}

    first: Mapped[int] = mapped_column(BigInteger)
    day: Mapped[date]
    entity_id: Mapped[int]  # as in `seen_visitors`
    authenticated: Mapped[bool]  # those alone who were, at least once; or everybody
    visitors: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))


class SeenVisitor(Base):
    """Who was counted since: in the daily row of an entity, or of the site, while its day gets events."""

    __tablename__ = "seen_visitors"
    __table_args__ = (UniqueConstraint("day", "entity_id", "visitor"),)
    __mapper_args__ = {"primary_key": ["day", "entity_id", "visitor"]}

    visitor: Mapped[int] = mapped_column(BigInteger)
    day: Mapped[date]
    entity_id: Mapped[int]  # no foreign key: written by the thousand, and erased with the entity
    authenticated: Mapped[bool]  # at least once


class EventKind(Base):
    """What many events have in common, so that each of them need only name it: they are few, and small to
    store and to count by. See `event_kinds`.
    """

    __tablename__ = "event_kinds"
    __table_args__ = (
        UniqueConstraint(
            "entity_type",
            "outcome",
            "device",
            "view_type",
            "view_source",
            "country",
            name="event_kinds_unique",
        ),
        CheckConstraint("outcome IN ('counted', 'own', 'repeat', 'bot')", name="outcome"),
        CheckConstraint("device IN ('desktop', 'mobile', 'tablet', 'player', 'other')", name="device"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    entity_type: Mapped[str]  # the entity's: so the site's views are told without looking for each page
    outcome: Mapped[str]
    device: Mapped[str]
    view_type: Mapped[str]
    view_source: Mapped[str]
    country: Mapped[str]
    last_seen_on: Mapped[date]  # by the site's clock, whatever the day of the event


class ViewEventRow(Base):
    """Every event, once, partitioned by day. Columns stand in the order that wastes no padding.

    A partition is indexed by `entity_id` when its day is over (`days.index_entities`): to keep that up to
    date for each event would cost as much as all else that PostgreSQL does for it.
    """

    __tablename__ = "view_events"
    __table_args__ = (
        UniqueConstraint("day", "id"),
        # rows come in this order, so a few bytes for many of them find what came last
        Index(
            None,
            "version",
            "occurred_at",
            postgresql_using="brin",
            postgresql_with={"autosummarize": True, "pages_per_range": 32},
        ),
        {"postgresql_partition_by": "RANGE (day)"},
    )
    # PostgreSQL wants no primary key, and a second unique index would cost as much as the rows
    __mapper_args__ = {"primary_key": ["day", "id"]}

    occurred_at: Mapped[datetime]
    visitor: Mapped[int | None] = mapped_column(BigInteger)
    # what brought it: the stream entry's number. A second delivery of the entry is told by it from
    # another event with the same id.
    entry: Mapped[int] = mapped_column(BigInteger)
    day: Mapped[date]
    entity_id: Mapped[int]  # no foreign key: the writer joins it, and a check per row costs a third
    version: Mapped[int]  # of the day, by the transaction that inserted the row
    kind_id: Mapped[int]  # of `event_kinds`; no foreign key, for the same reason
    id: Mapped[UUID]
    authenticated: Mapped[bool]
    referrer_domain: Mapped[str | None]


class ViewCounter(Base):
    """All views of an entity of one type, ever: what was dropped with its day, and the raw rows' views.

    No surrogate key: the pair is what the writer's ON CONFLICT relies on, and a second key beside it would
    let duplicates in if the first were lost.
    """

    __tablename__ = "view_counters"
    __table_args__ = (UniqueConstraint("entity_id", "view_type"),)
    __mapper_args__ = {"primary_key": ["entity_id", "view_type"]}

    entity_id: Mapped[int] = mapped_column(ForeignKey("entities.id", ondelete="CASCADE"))
    view_type: Mapped[str]
    count: Mapped[int] = mapped_column(BigInteger)
    sealed: Mapped[int] = mapped_column(BigInteger)  # of `count`, those of days whose raw rows are gone
    first_viewed_at: Mapped[datetime]
    last_viewed_at: Mapped[datetime]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ViewSlot(Base):
    """Who viewed what within the window, and which ids were answered: for the time without Redis."""

    __tablename__ = "view_slots"
    __table_args__ = (Index(None, "ends_at"), Index(None, "entity_id"))

    name: Mapped[bytes] = mapped_column(primary_key=True)
    entity_id: Mapped[int] = mapped_column(ForeignKey("entities.id", ondelete="CASCADE"))
    event_id: Mapped[UUID]
    ends_at: Mapped[datetime]
    answer: Mapped[str | None]  # of an id: what it was answered
    by_fallback: Mapped[bool]  # Redis does not know it yet


class ShownBehind(Base):
    """Counters that were raised without the count in Redis being raised; the next tick does that."""

    __tablename__ = "shown_behind"
    __table_args__ = (UniqueConstraint("entity_id", "view_type"),)
    __mapper_args__ = {"primary_key": ["entity_id", "view_type"]}

    entity_id: Mapped[int] = mapped_column(ForeignKey("entities.id", ondelete="CASCADE"))
    view_type: Mapped[str]


class Tally(Base):
    """What was accepted and settled without Redis, by day: the fallback's part of the ledger."""

    __tablename__ = "tallies"
    __table_args__ = (UniqueConstraint("day", "name"),)
    __mapper_args__ = {"primary_key": ["day", "name"]}

    day: Mapped[date]
    name: Mapped[str]
    amount: Mapped[int] = mapped_column(BigInteger)


class DailyStats(Base):
    """One row an entity and day, as the rollup counted it; breakdowns are {value: views}."""

    __tablename__ = "daily_stats"
    __table_args__ = (
        UniqueConstraint("entity_id", "day"),
        ForeignKeyConstraint(
            ["entity_id", "entity_type"], ["entities.id", "entities.entity_type"], ondelete="CASCADE"
        ),
        # each day's most viewed of a type, without reading the wide rows: see `ranking`
        Index(None, "day", "entity_type", "views", postgresql_include=["entity_id"]),
    )
    __mapper_args__ = {"primary_key": ["entity_id", "day"]}

    entity_id: Mapped[int]
    entity_type: Mapped[str] = mapped_column(String(40))  # the entity's, for the index
    day: Mapped[date]
    views: Mapped[int] = mapped_column(BigInteger)
    unique_viewers: Mapped[int] = mapped_column(BigInteger)
    views_authenticated: Mapped[int] = mapped_column(BigInteger)
    unique_viewers_authenticated: Mapped[int] = mapped_column(BigInteger)
    bots: Mapped[int] = mapped_column(BigInteger)
    own_views: Mapped[int] = mapped_column(BigInteger)
    repeats: Mapped[int] = mapped_column(BigInteger)
    views_by_country: Mapped[dict[str, Any]]
    views_by_device: Mapped[dict[str, Any]]
    views_by_type: Mapped[dict[str, Any]]
    views_by_source: Mapped[dict[str, Any]]
    views_by_referrer: Mapped[dict[str, Any]]
    views_by_hour: Mapped[dict[str, Any]]  # the site's only; keys are the hours' beginnings, in UTC
    views_by_country_authenticated: Mapped[dict[str, Any]]
    views_by_device_authenticated: Mapped[dict[str, Any]]
    views_by_type_authenticated: Mapped[dict[str, Any]]
    views_by_source_authenticated: Mapped[dict[str, Any]]
    views_by_referrer_authenticated: Mapped[dict[str, Any]]
    views_by_hour_authenticated: Mapped[dict[str, Any]]


class ReferrerDomain(Base):
    """A domain that is counted by name when it refers; all others are one: see `known_referrers`."""

    __tablename__ = "referrer_domains"

    domain: Mapped[str] = mapped_column(primary_key=True)
    first_seen_on: Mapped[date]  # by the site's clock, whatever the day of the view
    last_seen_on: Mapped[date]


class Adoption(Base):
    """How much of a number of another site's table is counted here already, so that only more is added."""

    __tablename__ = "adoptions"
    __table_args__ = (UniqueConstraint("source", "entity_id", "part", "value"),)
    __mapper_args__ = {"primary_key": ["source", "entity_id", "part", "value"]}

    source: Mapped[str]  # a fingerprint of the database, and its table
    entity_id: Mapped[int] = mapped_column(ForeignKey("entities.id", ondelete="CASCADE"))
    part: Mapped[str]  # what was counted: the total, a breakdown of a day
    value: Mapped[str]  # under which it was counted: a view type, a country
    count: Mapped[int] = mapped_column(BigInteger)


class DeadLetter(Base):
    """An event that cannot be stored, and why. Unique by its place in the stream: read twice, kept once."""

    __tablename__ = "dead_letters"
    __table_args__ = (UniqueConstraint("entry", "position"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    entry: Mapped[int] = mapped_column(BigInteger)
    position: Mapped[int]  # within the entry; -1: the entry as a whole could not be read
    day: Mapped[date | None]  # None: the event could not be read, and stands in no tally
    reason: Mapped[str]
    detail: Mapped[str]
    payload: Mapped[bytes]  # the event's envelope, or the entry's if it has no day; nothing personal
    outcome: Mapped[str | None]  # of an entry that could not be read: decided after its envelope was made
    created_at: Mapped[datetime]


class Audit(Base):
    """What `footfall.verify` found, the latest runs."""

    __tablename__ = "audits"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    audited_at: Mapped[datetime]
    days: Mapped[list[date]] = mapped_column(ARRAY(Date))  # whose daily rows were compared
    not_looked_at: Mapped[list[str]] = mapped_column(JSONB)  # and why
    found: Mapped[int]  # how many differences
    differences: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)  # the first of them
    ok: Mapped[bool]
