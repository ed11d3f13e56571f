"""The traffic of `footfall demo-data`: a month of an invented site, the same for the same seed and days.

Uneven on purpose, as real traffic is: days and nights, weekends, a slow rise, one article that a large site
linked to, an afternoon on which nobody counted.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from typing import Any
from uuid import UUID

from footfall.cli import sample
from footfall.clock import day_start, site_day
from footfall.entities import Name
from footfall.event import EPOCH, Device, Outcome, ViewEvent

MILLISECOND = timedelta(milliseconds=1)
PEOPLE = 4_000
VISITS_A_DAY = 800
SIGNED_IN_SHARE = 0.22  # of the people
CRAWLED_SHARE = 0.09  # of a day's page views, besides
SPIKE_DAYS_AGO = 9
SPIKE_FADES = (4.5, 2.1, 1.4)  # times an ordinary day: the day itself, and those after
SPIKE_PAGE = "/field-notes/our-first-octopus"
SPIKE_REFERRER = "news.ycombinator.com"
GAP_DAYS_AGO = 16
GAP = (time(9, 20), time(17, 5))
LIVE = timedelta(minutes=30)
LIVE_VIEWS = 110

# (value, weight)
COUNTRIES: Sequence[tuple[str | None, float]] = (
    *(("GB", 30), ("IE", 9), ("FR", 9), ("US", 14), ("DE", 8), ("NL", 5), ("PT", 4), ("NO", 3), ("ES", 3)),
    *(("CA", 3), ("DK", 2), ("BE", 2), ("SE", 2), ("AU", 2), ("NZ", 1.5), ("JP", 1), ("BR", 1), ("IS", 0.5)),
    (None, 3),
)
DEVICES: Sequence[tuple[Device, float]] = (
    ("mobile", 50),
    ("desktop", 40),
    ("tablet", 8),
    ("player", 1),
    ("other", 1),
)
REFERRERS: Sequence[tuple[str | None, float]] = (
    *((None, 44), ("google.com", 24), ("duckduckgo.com", 6), ("bing.com", 4), ("mastodon.social", 5)),
    *(
        ("en.wikipedia.org", 4),
        ("reddit.com", 3),
        ("bsky.app", 3),
        ("instagram.com", 2.5),
        ("youtube.com", 2),
    ),
    *(("tidetimes.example", 2), ("kagi.com", 1), ("rockpools.example.org", 1), ("ecosia.org", 1)),
)
ERRORS = (
    ("timeout", 8),
    ("not_found", 5),
    ("validation", 4),
    ("payment_declined", 2),
    ("out_of_memory", 0.5),
)
API_CALLS = (("search", 60), ("species", 30), ("tides", 45), ("feed", 15), ("export", 3))
UPLOADS = (("photo", 12), ("sighting", 7), ("recording", 2))

POST_TYPES = (("intentional", 60), ("listing", 30), ("search", 8), ("widget", 2))
BOOK_TYPES = (("card_view", 70), ("reader_open", 25), ("sample_download", 5))
PLAIN_TYPES = (("intentional", 1),)


@dataclass(frozen=True, slots=True)
class Told:
    """A thing with an owner and a title, as the host site would tell of it."""

    name: Name
    title: str
    owner: str
    weight: float  # how much of the views of content is its own
    view_types: Sequence[tuple[str, float]] = PLAIN_TYPES
    parent: Name | None = None
    reactions: Mapping[str, int] = field(default_factory=dict)
    comments: int = 0


# name, title, owner, weight, view types, parent, reactions, comments
THINGS = (
    Told(("blog_post", "dawn"), "Low water at dawn", "ann", 20, POST_TYPES, None, {"❤️": 41, "🦀": 17}, 12),
    Told(("blog_post", "hermits"), "Hermit crabs move house", "ann", 12, POST_TYPES, None, {"😂": 33}, 25),
    Told(("blog_post", "limpets"), "Counting limpets, again", "ben", 5, POST_TYPES, None, {"❤️": 6}, 2),
    Told(
        ("post", "101"), "Octopus at the harbour wall!", "cleo", 16, POST_TYPES, None, {"🐙": 88, "❤️": 5}, 47
    ),
    Told(("post", "102"), "Who has a spare hand lens?", "ben", 3, POST_TYPES, None, {"👍": 4}, 9),
    Told(("post", "103"), "Beach clean on Saturday", "ann", 6, POST_TYPES, None, {"👍": 19}, 6),
    Told(("book", "rock-pools"), "The Rock Pool Handbook", "ann", 22, BOOK_TYPES, None, {"⭐": 73}, 14),
    Told(("book", "seaweeds"), "Seaweeds of the North Ledge", "ben", 9, BOOK_TYPES, None, {"⭐": 21}, 3),
    Told(("book", "tides"), "Reading the Tides", "cleo", 4, BOOK_TYPES, None, {"⭐": 8}),
    Told(("story", "keeper"), "The Lighthouse Keeper's Log", "cleo", 10, PLAIN_TYPES, None, {"❤️": 29}, 11),
    *(
        Told(("chapter", f"keeper-{n}"), f"Night {n}", "cleo", 9 / n, parent=("story", "keeper"))
        for n in range(1, 7)
    ),
    Told(("story", "selkie"), "Selkie Weather", "ben", 4, PLAIN_TYPES, None, {"❤️": 7}, 1),
    Told(("course", "intertidal"), "Intertidal ecology in six evenings", "ann", 5),
    Told(("resource", "logbook"), "A logbook to print", "ann", 6),
)


@dataclass(frozen=True, slots=True)
class _Person:
    key: int
    country: str | None
    device: Device
    signed_in: bool
    pages_a_visit: int


@dataclass(slots=True)
class Month:
    """The days that end with `now`, and what happened on each of them."""

    now: datetime
    zone: tzinfo
    days: int
    seed: int

    def __iter__(self) -> Iterator[tuple[date, list[ViewEvent]]]:
        """Each day with its events, the oldest first, none after `now`."""
        today = site_day(self.now, self.zone)
        for ago in range(self.days - 1, -1, -1):
            day = today - timedelta(days=ago)
            yield day, [event for event in _Day(self, day, ago).events() if self._happened(event)]

    def gap(self) -> tuple[datetime, datetime] | None:
        """When nobody counted; None when the days do not reach back so far."""
        if self.days <= GAP_DAYS_AGO:
            return None
        day = site_day(self.now, self.zone) - timedelta(days=GAP_DAYS_AGO)
        start, end = (datetime.combine(day, at, self.zone).astimezone(UTC) for at in GAP)
        return start, end

    def _happened(self, event: ViewEvent) -> bool:
        gap = self.gap()
        return event.occurred_at <= self.now and not (gap and gap[0] < event.occurred_at < gap[1])


class _Day:
    """One day's events. Its chances are its own: another length of the month changes nothing in it."""

    def __init__(self, month: Month, day: date, ago: int) -> None:
        self._month = month
        self._day = day
        self._ago = ago
        self._chance = random.Random(f"{month.seed} {day}")  # noqa: S311 - invented traffic is no secret
        since_spike = SPIKE_DAYS_AGO - ago
        self._spike = SPIKE_FADES[since_spike] if 0 <= since_spike < len(SPIKE_FADES) else 1.0
        self._start = day_start(day, month.zone)
        self._end = day_start(day + timedelta(days=1), month.zone)

    def events(self) -> Iterator[ViewEvent]:
        """All that happens on the day, in no order."""
        growth = 1.25 - 0.5 * self._ago / 30
        weekday = sample.WEEKDAYS[self._day.weekday()] / max(sample.WEEKDAYS)
        ordinary = round(VISITS_A_DAY * growth * weekday * self._chance.uniform(0.88, 1.12))
        page_views = 0
        for visit in range(round(ordinary * self._spike)):
            for event in self._visit(came_for_the_article=visit >= ordinary):
                page_views += 1
                yield event
        for _ in range(round(CRAWLED_SHARE * page_views)):
            yield self._bot()
        for _ in range(ordinary // 2):
            yield self._content()
        yield from self._site_events(ordinary)
        if self._ago == 0:
            yield from self._live()

    def _visit(self, *, came_for_the_article: bool) -> Iterator[ViewEvent]:
        person = self._person(came_for_the_article)
        referrer = SPIKE_REFERRER if came_for_the_article else self._of(REFERRERS)
        path = SPIKE_PAGE if came_for_the_article else self._page()
        moment = self._moment()
        for _ in range(self._chance.randrange(2 * person.pages_a_visit) + 1):
            if moment >= self._end:
                return
            yield self._event(moment, ("page", path), person, referrer_domain=referrer)
            moment += timedelta(seconds=self._chance.uniform(4, 200))
            referrer, path = None, self._page()

    def _content(self) -> ViewEvent:
        weights = [thing.weight for thing in THINGS]
        [thing] = self._chance.choices(THINGS, weights)
        person = self._person(False)
        kind = thing.name[0]
        return self._event(
            self._moment(),
            thing.name,
            person,
            view_type=self._of(thing.view_types),
            view_source=self._of((("web", 90), ("widget", 6), ("api", 4))),
            outcome=self._of(_OUTCOMES.get(kind, _OUTCOMES["page"])),
            referrer_domain=self._of(REFERRERS),
            authenticated=person.signed_in or kind == "book",
        )

    def _bot(self) -> ViewEvent:
        crawler = _Person(0, self._of((("US", 6), ("DE", 2), ("CN", 2))), "other", False, 1)
        return self._event(
            self._moment(flat=True), ("page", self._page()), crawler, outcome="bot", visitor=None
        )

    def _site_events(self, ordinary: int) -> Iterator[ViewEvent]:
        trouble = 6 if self._spike == max(SPIKE_FADES) else 1
        for kind, classes, many in (
            ("signup", (("none", 1),), ordinary * 0.008 * self._spike),
            ("upload", UPLOADS, ordinary * 0.014),
            ("api_call", API_CALLS, ordinary * 0.8),
            ("error", ERRORS, ordinary * 0.012 * trouble),
        ):
            server = _Person(0, None, "other", False, 1)
            for _ in range(round(many * self._chance.uniform(0.7, 1.3))):
                yield self._event(
                    self._moment(),
                    ("site_event", kind),
                    server,
                    view_type=self._of(classes),
                    view_source="api",
                    visitor=None,
                )

    def _live(self) -> Iterator[ViewEvent]:
        """So that there is somebody on the site at the end, at whatever hour that is."""
        for _ in range(LIVE_VIEWS):
            moment = self._month.now - LIVE * self._chance.random()
            yield self._event(moment, ("page", self._page()), self._person(False))

    def _event(self, moment: datetime, name: Name, person: _Person, **values: Any) -> ViewEvent:
        milliseconds = (moment - EPOCH) // MILLISECOND
        chance = self._chance
        rest = chance.getrandbits(12) << 64 | 2 << 62 | chance.getrandbits(62)
        plain: dict[str, Any] = {
            "id": UUID(int=milliseconds << 80 | 7 << 76 | rest),
            "occurred_at": moment,
            "day": site_day(moment, self._month.zone),
            "entity_type": name[0],
            "external_id": name[1],
            "view_type": "intentional",
            "view_source": "web",
            "outcome": "counted",
            "device": person.device,
            "country": person.country,
            "referrer_domain": None,
            # as with the real thing, nobody is recognised the day after
            "visitor": (person.key * 2_654_435_761 + self._day.toordinal() * 40_503) % (1 << 62),
            "authenticated": person.signed_in,
        }
        return ViewEvent(**(plain | values))

    def _moment(self, *, flat: bool = False) -> datetime:
        [hour] = self._chance.choices(range(24), None if flat else sample.HOURS)
        local = datetime.combine(self._day, time(hour), self._month.zone).astimezone(UTC)
        return local + timedelta(seconds=self._chance.uniform(0, 3599))

    def _page(self) -> str:
        paths, weights = pages()
        return self._chance.choices(paths, cum_weights=weights)[0]

    def _person(self, is_new: bool) -> _Person:
        if is_new:  # nobody who was here before
            return _make_person(self._chance, self._chance.getrandbits(40), signed_in=False)
        people, weights = _people(self._month.seed)
        return self._chance.choices(people, cum_weights=weights)[0]

    def _of(self, weighted: Sequence[tuple[Any, float]]) -> Any:
        values, weights = zip(*weighted, strict=True)
        return self._chance.choices(values, weights)[0]


_OUTCOMES: Mapping[str, Sequence[tuple[Outcome, float]]] = {
    "page": (("counted", 1),),
    "post": (("counted", 92), ("own", 6), ("bot", 2)),
    "blog_post": (("counted", 92), ("own", 6), ("bot", 2)),
    "story": (("counted", 70), ("repeat", 25), ("own", 5)),
    "chapter": (("counted", 72), ("repeat", 26), ("own", 2)),
}


@cache
def pages() -> tuple[list[str], list[float]]:
    """The site's paths, the most read first, and their weights added up."""
    paths = list(sample.pages())
    paths += [f"/species/{name}/sightings" for name in sample.SECTIONS["species"].split()]
    paths += [f"/places/{name}/{of}" for name in sample.SECTIONS["places"].split() for of in ("tides", "map")]
    paths += [f"/field-notes/{year}/{month:02}" for year in (2025, 2024, 2023) for month in range(12, 0, -1)]
    paths += [f"/photos/{n}" for n in range(1, 30)]
    return paths, _added_up(1 / (rank + 1) for rank in range(len(paths)))


@cache
def _people(seed: int) -> tuple[list[_Person], list[float]]:
    chance = random.Random(seed)  # noqa: S311 - invented traffic is no secret
    people = [
        _make_person(chance, chance.getrandbits(40), signed_in=chance.random() < SIGNED_IN_SHARE)
        for _ in range(PEOPLE)
    ]
    # some come every day and most came once
    return people, _added_up(1 / (rank + 30) for rank in range(PEOPLE))


def _make_person(chance: random.Random, key: int, *, signed_in: bool) -> _Person:
    countries, country_weights = zip(*COUNTRIES, strict=True)
    devices, device_weights = zip(*DEVICES, strict=True)
    return _Person(
        key,
        chance.choices(countries, country_weights)[0],
        chance.choices(devices, device_weights)[0],
        signed_in,
        chance.choice((1, 1, 2, 2, 3, 5)),
    )


def _added_up(weights: Iterator[float]) -> list[float]:
    total = 0.0
    return [total := total + weight for weight in weights]
