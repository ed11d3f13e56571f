"""What Prometheus is told: every name with its kind and meaning, and the text format that it reads."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Name = Literal[
    "footfall_up",
    "footfall_scrape_problems",
    "footfall_store_answer_seconds",
    "footfall_build_info",
    "footfall_redis_enabled",
    "footfall_requests_total",
    "footfall_request_duration_seconds",
    "footfall_refusals_total",
    "footfall_country_lookups_total",
    "footfall_country_source_info",
    "footfall_country_problem",
    "footfall_country_file_built_timestamp_seconds",
    "footfall_events_accepted_total",
    "footfall_events_settled_total",
    "footfall_events_duplicates_total",
    "footfall_events_dead_letters_total",
    "footfall_events_erased_total",
    "footfall_queue_entries",
    "footfall_queue_events",
    "footfall_queue_limit_entries",
    "footfall_queue_oldest_age_seconds",
    "footfall_ledger_unbalanced",
    "footfall_dead_letters",
    "footfall_rollups_waiting",
    "footfall_rollup_last_timestamp_seconds",
    "footfall_partitions",
    "footfall_partitions_overdue",
    "footfall_salts_overdue",
    "footfall_schema_ok",
    "footfall_table_size_bytes",
    "footfall_table_rows",
    "footfall_cache_answers_total",
    "footfall_redis_memory_used_bytes",
    "footfall_redis_memory_limit_bytes",
    "footfall_redis_keys",
    "footfall_redis_durable",
]

# In the order in which they are shown
METRICS: Mapping[Name, tuple[Kind, str]] = {
    "footfall_up": ("gauge", "1 if the store answers, 0 if not."),
    "footfall_scrape_problems": ("gauge", "What a store that answers could not say, or not in time."),
    "footfall_store_answer_seconds": ("gauge", "How long the store took over the simplest question."),
    "footfall_build_info": ("gauge", "The version that answers."),
    "footfall_redis_enabled": (
        "gauge",
        "1 if views go through Redis, 0 if VIEW_TRACKING_REDIS_ENABLED is false.",
    ),
    "footfall_requests_total": ("counter", "Requests answered, of every endpoint."),
    "footfall_request_duration_seconds": ("histogram", "Time from the request's dispatch to its answer."),
    "footfall_refusals_total": (
        "counter",
        "Tracking requests that were refused, and events of batches that were, by the error's code.",
    ),
    "footfall_country_lookups_total": ("counter", "Browsers' views for which a country was asked."),
    "footfall_country_source_info": ("gauge", "Where countries come from: header, file or none."),
    "footfall_country_problem": ("gauge", "1 if the country file cannot be read."),
    "footfall_country_file_built_timestamp_seconds": ("gauge", "When the country file was built."),
    "footfall_events_accepted_total": (
        "counter",
        "Events made durable: through Redis, or straight into PostgreSQL.",
    ),
    "footfall_events_settled_total": ("counter", "Accepted events whose fate is decided."),
    "footfall_events_duplicates_total": ("counter", "Settled events whose id was there already."),
    "footfall_events_dead_letters_total": ("counter", "Settled events that could not be stored."),
    "footfall_events_erased_total": ("counter", "Events of deleted entities."),
    "footfall_queue_entries": ("gauge", "Entries in the stream, of one or more events each."),
    "footfall_queue_events": (
        "gauge",
        "Events of today and yesterday that Redis accepted and no writer has settled; at most 50 an entry.",
    ),
    "footfall_queue_limit_entries": ("gauge", "Entries from which on views are refused."),
    "footfall_queue_oldest_age_seconds": ("gauge", "Age of the oldest unwritten entry, 0 without one."),
    "footfall_ledger_unbalanced": (
        "gauge",
        "Of the last 3 closed days, those whose ledger does not balance; looked at every 15 minutes.",
    ),
    "footfall_dead_letters": ("gauge", "Rows in dead_letters, counted up to 10000."),
    "footfall_rollups_waiting": (
        "gauge",
        "Closed days whose daily rows do not hold all of their events.",
    ),
    "footfall_rollup_last_timestamp_seconds": ("gauge", "When a day was last rolled up or forward."),
    "footfall_partitions": ("gauge", "Days whose raw events are kept."),
    "footfall_partitions_overdue": ("gauge", "Those of them that are past their retention."),
    "footfall_salts_overdue": ("gauge", "Salts of visitors' keys that should have been deleted."),
    "footfall_schema_ok": (
        "gauge",
        "1 if the database's revision and unique keys are what this version needs.",
    ),
    "footfall_table_size_bytes": ("gauge", "Size of a table with its indexes and partitions."),
    "footfall_table_rows": ("gauge", "Rows of a table, as PostgreSQL last estimated."),
    "footfall_cache_answers_total": ("counter", "Readers' answers by whether they were in the cache."),
    "footfall_redis_memory_used_bytes": ("gauge", "What Redis uses."),
    "footfall_redis_memory_limit_bytes": (
        "gauge",
        "Its maxmemory; absent without one. Intake stops at 75 % of it.",
    ),
    "footfall_redis_keys": ("gauge", "Keys in Redis, Celery's too."),
    "footfall_redis_durable": ("gauge", "1 if Redis keeps an append-only file and its last write succeeded."),
}

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True, slots=True)
class Sample:
    """One number. `suffix` is what a histogram's parts add to its name."""

    name: Name
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: Literal["", "_bucket", "_sum", "_count"] = ""


def text_of(samples: Iterable[Sample]) -> str:
    """The samples in Prometheus' text format 0.0.4; names without one are left out."""
    places = {name: place for place, name in enumerate(METRICS)}
    in_order = sorted(samples, key=lambda sample: places[sample.name])  # stable: a histogram stays as it came
    lines = [
        line for name, group in groupby(in_order, lambda sample: sample.name) for line in _family(name, group)
    ]
    return "\n".join([*lines, ""])


def _family(name: Name, samples: Iterable[Sample]) -> Iterator[str]:
    kind, meaning = METRICS[name]
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for sample in samples:
        pairs = ",".join(f'{label}="{value.translate(ESCAPES)}"' for label, value in sample.labels.items())
        yield f"{name}{sample.suffix}{f'{{{pairs}}}' if pairs else ''} {sample.value!r}"
