"""The shapes of the contract, as JSON Schema: what `api.openapi` names by reference."""

from collections.abc import Mapping
from typing import Any

from footfall import fields
from footfall.content_types import CONTENT_TYPES, SITE_EVENTS
from footfall.definitions import DIMENSIONS
from footfall.event import OUTCOMES
from footfall.host import MAX_REACTIONS, MAX_TITLE_BYTES, MOST
from footfall.intake import DEFAULT_VIEW_SOURCE, DEFAULT_VIEW_TYPE, MAX_BATCH_EVENTS
from footfall.ledger import OUTCOMES as LEDGER_OUTCOMES
from footfall.stats import REALTIME_MINUTES

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
YES_OR_NO: Schema = {"type": "boolean"}
DATE: Schema = {"type": "string", "format": "date"}
MOMENT: Schema = {"type": "string", "format": "date-time"}
COUNTS: Schema = {"type": "object", "additionalProperties": COUNT}
VIEW_TYPE: Schema = {"type": "string", "pattern": f"^{fields.VIEW_TYPE.pattern}$"}
IDENTIFIER: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": fields.MAX_ID_BYTES,
    "description": f"At most {fields.MAX_ID_BYTES} bytes of UTF-8, no control characters.",
}
PATH: Schema = {
    "type": "string",
    "pattern": "^/",
    "maxLength": fields.MAX_URL_CHARACTERS,
    "description": f"Query and fragment are cut off; then at most {fields.MAX_PATH_BYTES} bytes of UTF-8.",
}
CONTENT_TYPE: Schema = {"type": "string", "enum": list(CONTENT_TYPES)}
OUTCOME: Schema = {"type": "string", "enum": sorted(OUTCOMES)}
ID: Schema = {
    "type": ["string", "null"],
    "format": "uuid",
    "description": "Born in the client; version 7 for promises beyond the day. The same id again changes "
    "nothing and gets the first answer.",
}
REFERRER: Schema = {"type": ["string", "null"], "description": "A URL, of which only the domain is kept."}


def ref(name: str) -> Schema:
    """A reference to the schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these fields. More may be there: answers may grow, and unknown fields are ignored."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


def list_of(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def _by_audience(properties: Mapping[str, Schema]) -> dict[str, Schema]:
    """Figures of all viewers, and again of signed-in ones."""
    return {**properties, **{f"{name}_authenticated": schema for name, schema in properties.items()}}


def _traffic(total: str) -> dict[str, Schema]:
    return _by_audience(
        {
            total: COUNT,
            "visitor_days": {**COUNT, "description": "Unique viewers of each day, added up."},
            **{_breakdown(dimension): COUNTS for dimension in DIMENSIONS},
            "daily_views": list_of(ref("DayOfViews")),
        }
    )


def _breakdown(dimension: str) -> str:
    return "top_referrers" if dimension == "referrer" else f"views_by_{dimension}"


_WHO: dict[str, Schema] = {
    "ip": {"type": ["string", "null"], "description": "Hashed at once, never kept."},
    "user_agent": {"type": ["string", "null"], "description": "None or empty is a crawler's."},
    "user_id": or_null(IDENTIFIER),
    "country": {"type": ["string", "null"], "description": "ISO 3166-1 alpha-2."},
    "occurred_at": {
        "type": ["string", "null"],
        "format": "date-time",
        "description": "Required with an id that is not a UUIDv7.",
    },
}
_HOW: dict[str, Schema] = {
    "view_type": {**or_null(VIEW_TYPE), "default": DEFAULT_VIEW_TYPE},
    "view_source": {
        "type": ["string", "null"],
        "enum": [*sorted(fields.VIEW_SOURCES), None],
        "default": DEFAULT_VIEW_SOURCE,
    },
    "referrer": REFERRER,
    "id": ID,
}
_ENTITY: dict[str, Schema] = {"entity_type": CONTENT_TYPE, "entity_id": {**TEXT, "minLength": 1}}
_REACTIONS: Schema = {
    "type": "object",
    "maxProperties": MAX_REACTIONS,
    "additionalProperties": {**COUNT, "maximum": MOST},
}
_ENGAGEMENT = record({}, {"reactions": or_null(_REACTIONS), "comments": or_null({**COUNT, "maximum": MOST})})

SCHEMAS: dict[str, Schema] = {
    "Error": record(
        {"error": {**TEXT, "description": "For a person."}, "code": {**TEXT, "pattern": "^[a-z_]+$"}}
    ),
    "PageView": record({"path": PATH}, {"referrer": REFERRER, "id": ID}),
    "View": record(_ENTITY, _HOW),
    "Viewed": record(
        {"counted": YES_OR_NO, "outcome": OUTCOME, "first_view": YES_OR_NO, "view_count": COUNT}
    ),
    "Batch": record(
        {
            "events": {
                # anything is taken, and answered by its index: a bad one costs itself only
                **list_of({"anyOf": [ref("ReportedView"), {}]}),
                "maxItems": MAX_BATCH_EVENTS,
            }
        }
    ),
    "ReportedView": record(_ENTITY, _HOW | _WHO),
    "BatchTaken": record(
        {
            "accepted": COUNT,
            "outcomes": {"type": "object", "propertyNames": OUTCOME, "additionalProperties": COUNT},
            "errors": list_of(record({"index": COUNT, "error": TEXT})),
        }
    ),
    "SiteEvent": record(
        {"event_type": {"type": "string", "enum": list(SITE_EVENTS)}},
        {
            "detail": {
                "type": ["string", "null"],
                "description": "Folded to a class: a-z, 0-9 and _.",
            },
            "id": ID,
            **_WHO,
        },
    ),
    "Success": record({"success": {"const": True}}),
    "SuccessCount": record({"success": {"const": True}, "count": COUNT}),
    "Flushed": record({"success": {"const": True}, "flushed": COUNT}),
    "FirstView": {
        **record({"isFirstView": YES_OR_NO, "viewCount": COUNT}),
        "patternProperties": {"^[a-z_]+ViewCount$": COUNT},
        "description": "With the count of the parent that the host site has told of: storyViewCount.",
    },
    "Count": record({"count": COUNT}),
    "CountsByType": COUNTS,
    "BareView": record({}, {"referrer": REFERRER, "id": ID}),
    "TellEntity": record(
        {},
        {
            "owner_id": or_null(IDENTIFIER),
            "title": {"type": ["string", "null"], "maxLength": MAX_TITLE_BYTES},
            "parent": {"anyOf": [record(_ENTITY), {"type": "null"}]},
            "engagement": {"anyOf": [_ENGAGEMENT, {"type": "null"}]},
        },
    ),
    "Entity": record(
        {
            **_ENTITY,
            "owner_id": or_null(TEXT),
            "title": or_null(TEXT),
            "parent": {"anyOf": [record(_ENTITY), {"type": "null"}]},
            "engagement": record({"reactions": COUNTS, "comments": or_null(COUNT)}),
        }
    ),
    "DayOfViews": record(
        {
            "date": DATE,
            "views": COUNT,
            "unique_viewers": COUNT,
            "gap": {**YES_OR_NO, "description": "Nobody counted for more than 10 minutes of it."},
        }
    ),
    "DayOfEvents": record({"date": DATE, "count": COUNT}),
    "NotCounted": record(dict.fromkeys(sorted(OUTCOMES - {"counted"}), COUNT)),
    "EntityStats": record(
        {
            **_ENTITY,
            "title": or_null(TEXT),
            **_traffic("total_views"),
            "not_counted": ref("NotCounted"),
            "all_time_views": COUNT,
            "first_view_at": or_null(MOMENT),
            "last_view_at": or_null(MOMENT),
            "total_reactions": COUNT,
            "reactions_by_emoji": COUNTS,
            "total_comments": COUNT,
            "computed_at": MOMENT,
        }
    ),
    "SitewideStats": record(
        {
            **_traffic("total_page_views"),
            "new_signups": COUNT,
            "new_posts": COUNT,
            "total_api_calls": COUNT,
            "total_errors": COUNT,
            "daily_signups": list_of(ref("DayOfEvents")),
            "daily_posts": list_of(ref("DayOfEvents")),
            "errors_by_type": COUNTS,
            **_by_audience(
                {
                    "hourly_views": {
                        **list_of(record({"hour": MOMENT, "views": COUNT})),
                        "minItems": 24,
                        "maxItems": 24,
                    },
                    "views_by_page": COUNTS,
                }
            ),
            "not_counted": ref("NotCounted"),
            "computed_at": MOMENT,
        }
    ),
    "Top": record(
        {
            "items": list_of(
                record(
                    {
                        "entity_id": TEXT,
                        "title": or_null(TEXT),
                        "views": COUNT,
                        "visitor_days": {
                            **or_null(COUNT),
                            "description": "null for all time and for one view type.",
                        },
                    }
                )
            )
        }
    ),
    "Realtime": record(
        {
            "views_by_minute": {
                **list_of(record({"minute": MOMENT, "views": COUNT})),
                "minItems": REALTIME_MINUTES,
                "maxItems": REALTIME_MINUTES,
            },
            "current_visitors": COUNT,
            "top_pages": COUNTS,
            "computed_at": MOMENT,
        }
    ),
    "Ledger": record({"days": list_of(ref("DayOfLedger"))}),
    "DayOfLedger": record(
        {
            "date": DATE,
            "accepted": COUNT,
            "settled": COUNT,
            "rows": record(dict.fromkeys(LEDGER_OUTCOMES, COUNT)),
            "duplicates": COUNT,
            "dead_letters": COUNT,
            "erased": COUNT,
            "queued": {"type": "integer"},
            "refusals": {
                **COUNTS,
                "description": "Tracking requests, and events of batches, by the error's code.",
            },
            "gap": YES_OR_NO,
            "balanced": YES_OR_NO,
        }
    ),
    "Health": record({"status": {"const": "ok"}}),
    "Readiness": record(
        {
            "ready": YES_OR_NO,
            "checks": {"type": "object", "additionalProperties": record({"ok": YES_OR_NO})},
        }
    ),
}
