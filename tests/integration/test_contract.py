"""The contract that the API serves is the one that it keeps: no route is missing, no answer is another."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings_of
from hypothesis import strategies as st
from redis import Redis
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks
from sqlalchemy import Engine

from api.openapi import document
from footfall.content_types import CONTENT_TYPES
from footfall.settings import Settings
from tests.factory import SECRET, make_event, make_settings, store
from tests.integration.api import SERVICE, bearer
from tests.integration.content import site_on

DOCUMENT = document(make_settings())
METHODS = {"get", "post", "put", "delete"}
OPERATIONS = [
    (method, path) for path, methods in DOCUMENT["paths"].items() for method in methods if method in METHODS
]
EXAMPLES = 40  # of each operation
CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]

hypothesis_settings = hypothesis_settings_of(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def routes(app: Flask) -> set[tuple[str, str]]:
    """(method, path as the contract writes it) of everything under /api."""
    return {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


@pytest.fixture
def contract(settings: Settings, engine: Engine, redis: Redis) -> Iterator[Any]:
    """The contract as the running app serves it, with something of everything to read."""
    with site_on(settings, engine, redis) as site:
        now = datetime.now(UTC)
        names = [("page", "/a"), ("book", "p1"), ("post", "p1"), ("blog_post", "p1"), ("chapter", "p1")]
        events = [make_event(settings, now, entity_type=kind, external_id=name) for kind, name in names]
        store(engine, redis, settings, events)
        site.tell("chapter/p1", parent={"entity_type": "story", "entity_id": "s1"})
        app = site.client.application
        yield schemathesis.openapi.from_wsgi("/api/openapi.json", app)


def test_the_contract_and_the_routes_are_the_same(contract: Any) -> None:
    assert routes(contract.app) == set(OPERATIONS)


def test_anybody_may_read_the_contract(contract: Any) -> None:
    response = contract.app.test_client().get("/api/openapi.json")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.json == DOCUMENT


def test_every_reference_leads_somewhere() -> None:
    names = set(re.findall(r"#/components/schemas/(\w+)", str(DOCUMENT["paths"])))
    names |= set(re.findall(r"#/components/schemas/(\w+)", str(DOCUMENT["components"])))
    assert names == set(DOCUMENT["components"]["schemas"]), "and none is left over"


def test_operations_have_names_of_their_own() -> None:
    named = [DOCUMENT["paths"][path][method]["operationId"] for method, path in OPERATIONS]
    assert len(set(named)) == len(OPERATIONS)


def test_the_settings_decide_what_may_be_asked_and_who_has_to_sign_in() -> None:
    other = document(make_settings(FOOTFALL_DAILY_RETENTION_DAYS="90", FOOTFALL_REQUIRE_SIGN_IN="false"))
    for made, most, anonymous in ((DOCUMENT, 30, False), (other, 90, True)):
        days = made["paths"]["/api/admin/sitewide-stats"]["get"]["parameters"][0]["schema"]
        assert days["maximum"] == most
        assert ({} in made["paths"]["/api/books/{entity_id}/track-view"]["post"]["security"]) == anonymous


def test_every_type_with_a_door_is_in_the_contract() -> None:
    for content_type in CONTENT_TYPES.values():
        if content_type.door is not None:
            path = "/api" + content_type.door.path.replace("<entity_id>", "{entity_id}")
            assert "post" in DOCUMENT["paths"][path]


def test_what_the_contract_says_of_anonymous_callers_is_so(contract: Any) -> None:
    for method, path in OPERATIONS:
        security = DOCUMENT["paths"][path][method]["security"]
        url = path.format(entity_type="book", entity_id="b1") + "?path=/a"
        answer = contract.app.test_client().open(url, method=method.upper(), json={"viewType": "card_view"})
        assert (answer.status_code == 401) == ({} not in security), (method, path)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_app_keeps_the_contract(
    settings: Settings, contract: Any, engine: Engine, method: str, path: str
) -> None:
    """Whatever is sent, as the contract says and otherwise, by whomever: never a 5xx, always as described."""
    operation = contract[path][method.upper()]
    good, bad = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

    @seed(0)  # the same requests each time: what it finds once, it finds everywhere
    @hypothesis_settings
    @given(
        case=st.one_of(good, good, bad),
        headers=st.sampled_from(callers(settings)),
        known=st.booleans(),
    )
    def check(case: Any, headers: dict[str, str], known: bool) -> None:
        if known:
            name_something_known(case)
        case.call_and_validate(headers=headers, checks=CHECKS)

    check()


def callers(settings: Settings) -> list[dict[str, str]]:
    """One of each kind, and most often one who may do everything."""
    claims = {"sub": "ada", "roles": ["admin", "service"]}
    may = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"}
    user = bearer(settings, "user")
    return [
        *[may] * 4,
        user,
        user,
        bearer(settings, "moderator"),
        SERVICE,
        {},
        {"Authorization": "Bearer x.y"},
    ]


def name_something_known(case: Any) -> None:
    """Ask for what there is; invented names hardly ever are of anything."""
    if "entity_id" in case.path_parameters:
        case.path_parameters["entity_id"] = "p1"
    if "entity_type" in case.path_parameters:
        case.path_parameters["entity_type"] = "post"
    if "path" in case.query:
        case.query["path"] = "/a"
