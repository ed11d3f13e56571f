"""What a reader of the dashboard wants to see. It stands in the address: every view is a plain link."""

from dataclasses import dataclass
from typing import Any

from flask import request, url_for

from api.parts import parts
from footfall import fields
from footfall.cache import Answer
from footfall.content_types import CONTENT_TYPES, PAGE

# by the address's word: what it is called, its days, and the period of the most viewed. Days are the site's
# days, today included, so the first is today since midnight; the last 24 hours are drawn by the hour.
RANGES = {"24h": ("Today", 1, "day"), "7d": ("7 days", 7, "week"), "30d": ("30 days", 30, "month")}
DEFAULT_RANGE = "7d"
AUDIENCES = {"all": "All viewers", "authenticated": "Signed in"}
SEARCH_BYTES = 2_048


@dataclass(frozen=True, slots=True)
class Choice:
    """A range, an audience, and what the list of the most viewed shows."""

    range: str
    audience: str
    entity_type: str
    query: str

    @property
    def days(self) -> int:
        """How many, today included."""
        return RANGES[self.range][1]

    @property
    def period(self) -> str:
        """The same, in the words of the most viewed."""
        return RANGES[self.range][2]

    @property
    def is_everybody(self) -> bool:
        """Whether the figures are those of all viewers."""
        return self.audience == "all"

    @property
    def kept(self) -> dict[str, Any]:
        """What every link of a page carries on."""
        return {"range": self.range, "audience": self.audience}

    def of(self, answer: Answer, name: str) -> Any:
        """A traffic figure of `answer`, for the audience."""
        return answer[name if self.is_everybody else f"{name}_authenticated"]


def choice() -> Choice:
    """What the request's address asks for. Raises `Invalid`."""
    known = [word for word, _ in ranges()]
    default = DEFAULT_RANGE if DEFAULT_RANGE in known else known[-1]
    return Choice(
        fields.one_of(request.args.get("range", default), "range", known),
        fields.one_of(request.args.get("audience", "all"), "audience", AUDIENCES),
        fields.content_type(request.args.get("type", PAGE.name), "type").name,
        fields.line(request.args.get("q", "").strip(), "q", SEARCH_BYTES),
    )


def ranges() -> list[tuple[str, str]]:
    """(word, name) of the ranges whose days are kept."""
    kept = parts().settings.daily_retention_days
    return [(word, name) for word, (name, days, _) in RANGES.items() if days <= kept]


def longest_days() -> int:
    """As many days as any range has: what a range is compared with is in them, and beat keeps them fresh."""
    kept = parts().settings.daily_retention_days
    return min(kept, max(days for _, days, _ in RANGES.values()))


def links(name: str, chosen: str, known: list[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    """(text, address, whether it is the present one) of this page with each of `known` as its `name`."""
    return [(text, _here(name, word), word == chosen) for word, text in known]


def entity_url(entity_type: str, entity_id: str, chosen: Choice) -> str:
    """The page of an entity."""
    if entity_type == PAGE.name:
        return url_for("dashboard.page", path=entity_id, **chosen.kept)
    return url_for("dashboard.entity", entity_type=entity_type, entity_id=entity_id, **chosen.kept)


def can_be_shown(entity_type: str, entity_id: str) -> bool:
    """Whether an entity has a page: what collects the pages over the cap has none, nor has nothing."""
    return bool(entity_id) and (not CONTENT_TYPES[entity_type].external_id_is_path or entity_id[0] == "/")


def _here(name: str, word: str) -> str:
    arguments: dict[str, Any] = {**(request.view_args or {}), **request.args.to_dict(), name: word}
    return url_for(request.endpoint or "dashboard.site", **arguments)
