"""A backup is a dump and the secrets: a fresh instance that gets them has the same numbers and goes on."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.functional.instance import Instance
from tests.functional.test_privacy import postgres_program
from tests.waiting import wait_until

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
VIEWS = 40
NEW_REDIS = "the ledger of before is not in the dump: its views are in no tally"
# What README says: a salt in a backup would let somebody recompute who was who
LEFT_OUT = ("--exclude-table-data=salts", "--exclude-table-data=view_slots")


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="footfall-backup-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_a_restored_backup_has_the_same_numbers_and_goes_on(folder: Path) -> None:
    dump = folder / "footfall.dump"
    with Instance(folder / "old").running() as old:
        view(old, VIEWS)
        assert old.cli("rollup").returncode == 0
        before = numbers(old)
        assert before["course"] == VIEWS
        program("pg_dump", "--format=custom", *LEFT_OUT, f"--file={dump}", old.run["postgres"]["url"])
        secrets = (old.data_dir / "secrets.json").read_bytes()

    with restored(folder / "new", dump, secrets) as new:
        assert numbers(new) == before
        verified = new.cli("verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        view(new, 5)
        after = numbers(new)
        assert after["course"] == VIEWS + 5
        assert after["pages"] == before["pages"] + 5
        assert after["visitors"] == before["visitors"] + 1, "the salt was left out: one visitor is two"


@contextmanager
def restored(data_dir: Path, dump: Path, secrets: bytes) -> Iterator[Instance]:
    """A fresh instance that was given the dump before anybody used it."""
    data_dir.mkdir(mode=0o700)
    (data_dir / "secrets.json").write_bytes(secrets)
    (data_dir / "secrets.json").chmod(0o600)
    with Instance(data_dir).running(unbalanced=NEW_REDIS) as empty:
        url = empty.run["postgres"]["url"]
        program("psql", "--quiet", "--command=DROP SCHEMA public CASCADE; CREATE SCHEMA public", url)
        program("pg_restore", "--single-transaction", "--no-owner", f"--dbname={url}", str(dump))
    with Instance(data_dir).running(unbalanced=NEW_REDIS) as instance:
        yield instance


def view(instance: Instance, times: int) -> None:
    """View a page and a course so often, and wait until that is written."""
    before = stored(instance)
    for _ in range(times):
        browser = {"User-Agent": BROWSER}
        body = {"contentType": "course", "contentId": "c1"}
        assert instance.post("/api/views", body, browser).status == 200
        assert instance.post("/api/track/page-view", {"path": "/a"}, browser).status == 204
    wait_until(lambda: stored(instance) == before + 2 * times, "the views to be written")


def stored(instance: Instance) -> int:
    engine = instance.engine()
    with engine.connect() as connection:
        count: int = connection.exec_driver_sql("SELECT count(*) FROM view_events").scalar_one()
    engine.dispose()
    return count


def numbers(instance: Instance) -> dict[str, Any]:
    """What readers are told."""
    token = instance.cli("token", "--role", "moderator", "--subject", "mo").stdout.strip()
    reader = {"Authorization": f"Bearer {token}"}
    site = instance.get("/api/admin/sitewide-stats?days=7&refresh=true", reader).json
    course = instance.get("/api/views?contentType=course&contentId=c1", {}).json
    return {
        "course": course["count"],
        "pages": site["total_page_views"],
        "visitors": site["visitor_days"],
        "by_device": site["views_by_device"],
    }


def program(name: str, *arguments: str) -> None:
    subprocess.run([postgres_program(name), *arguments], check=True, timeout=120)
