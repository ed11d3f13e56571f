"""A site on which everything has happened that metrics tell of."""

from pathlib import Path

from footfall import rollup, stream
from tests.factory import make_event
from tests.integration.conftest import NOW
from tests.integration.content import Open, Site
from tests.unit import mmdb


def site_with_everything(open_site: Open, folder: Path, **changes: object) -> Site:
    """One of each, at NOW; whatever a client or a host may say has "secret" in it."""
    file = folder / "countries.mmdb"
    mmdb.write(file, "192.0.2.77", {"country": {"iso_code": "NP"}})
    site = open_site(country_file=file, **changes)
    site.send("/api/track/page-view", {"path": "/secret-page", "referrer": "https://secret.example/x"})
    site.track("/api/books/secret-book/track-view", {"viewType": "secret_type"}, user="secret-user")
    site.batch({"entity_type": "course", "entity_id": "secret-course", "user_id": "secret-user"})
    site.tell("book/secret-book", owner_id="secret-owner", title="secret-title")
    site.client.open("/secret-route", method="SECRET")
    site.client.open("/api/track/secret-route", method="SECRET")
    site.client.open("/api/track/page-view", method="SECRET")
    site.client.get("/api/books/secret-book/stats?secret=1")
    stream.put(site.redis, [make_event(site.settings, NOW, external_id="/secret-queued")])
    site.redis.xadd(stream.STREAM_KEY, {stream.FIELD: b"secret-bytes"})
    site.write()
    rollup.catch_up(site.engine, NOW.date(), NOW)
    return site
