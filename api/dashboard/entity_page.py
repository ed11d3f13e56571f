"""The panels of an entity's page, put together from the answers of the API."""

from datetime import datetime
from typing import Any

from flask import url_for

from api.dashboard import panels
from api.dashboard.choice import Choice, longest_days
from api.dashboard.panels import Card
from api.parts import parts
from footfall.cache import Answer
from footfall.content_types import PAGE
from footfall.entities import EntityRow

CHART_DAYS = 7  # at least: one day makes no chart of days


def values(choice: Choice, entity: EntityRow, answer: Answer, now: datetime) -> dict[str, Any]:
    """What the template prints. `answer` is the entity's, over the chosen range."""
    total = choice.of(answer, "total_views")
    longest = parts().answers.entity(entity, longest_days(), now)
    charted = choice.of(longest, "daily_views")[-max(choice.days, CHART_DAYS) :]
    return {
        "entity": entity,
        "kind": panels.words(entity.entity_type),
        "cards": _cards(choice, answer, longest),
        "facts": _facts(answer),
        "is_empty": answer["all_time_views"] == 0 and not sum(answer["not_counted"].values()),
        "main_chart": panels.days(charted),
        **panels.traffic(choice.of, answer, total),
        "reactions": panels.names(
            "Reactions", "Reaction", _ranked(answer["reactions_by_emoji"]), "No reactions were told."
        ),
        "not_counted": panels.not_counted(answer["not_counted"]),
        "export": _export(entity, choice),
    }


def _cards(choice: Choice, answer: Answer, longest: Answer) -> list[Card]:
    days = choice.days
    daily = choice.of(longest, "daily_views")
    views, visitors = panels.by_day(daily, "views"), panels.by_day(daily, "unique_viewers")
    return [
        panels.card("Views", choice.of(answer, "total_views"), views, days),
        panels.card(panels.visitors_name(days), choice.of(answer, "visitor_days"), visitors, days),
        Card("All-time views", answer["all_time_views"]),
        Card("Reactions", answer["total_reactions"]),
        Card("Comments", answer["total_comments"]),
    ]


def _facts(answer: Answer) -> list[tuple[str, str]]:
    zone = parts().settings.time_zone
    return [
        ("First view", panels.moment_name(answer["first_view_at"], zone)),
        ("Last view", panels.moment_name(answer["last_view_at"], zone)),
    ]


def _export(entity: EntityRow, choice: Choice) -> str:
    if entity.entity_type == PAGE.name:
        return url_for("reading.page_export", path=entity.external_id, days=choice.days)
    return url_for(
        "reading.entity_export",
        entity_type=entity.entity_type,
        entity_id=entity.external_id,
        days=choice.days,
    )


def _ranked(values: dict[str, int]) -> dict[str, int]:
    return dict(sorted(values.items(), key=lambda item: -item[1]))
