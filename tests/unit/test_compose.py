"""docker-compose.yml and Dockerfile say what this code has: modules, queues, settings, servers' options.

Read as text: no parser of YAML is among the dependencies, and the file is written plainly enough.
"""

import importlib
import re
from pathlib import Path

import pytest

import celeryconfig
from footfall.cli.embedded import POSTGRES_SETTINGS, REDIS_SETTINGS
from footfall.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()

OWN = {"migrate", "api", "worker", "upkeep", "beat"}
STORES = {"postgres", "redis"}
INTERPOLATED = re.compile(r"\$\{([A-Z_]+)")
ENVIRONMENT_LINE = re.compile(r"^ {4}([A-Z_]+): ", re.MULTILINE)


class Recorder(dict[str, str]):
    """A mapping that remembers what it was asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.asked.add(key)
        return super().get(key, default)


def blocks(section: str) -> dict[str, str]:
    """The text below each name of a section of the file."""
    (body,) = re.findall(rf"^{section}:[^\n]*\n((?:(?: [^\n]*)?\n)*)", COMPOSE, re.MULTILINE)
    parts = re.split(r"^  ([a-z]+):[^\n]*\n", body, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def words(service: str) -> list[str]:
    """A service's command, as its process gets it."""
    block = blocks("services")[service]
    if flow := re.search(r"^    command: \[(.*)\]$", block, re.MULTILINE):
        return [word.strip().strip('"') for word in flow[1].split(",")]
    (lines,) = re.findall(r"^    command:\n((?:      - [^\n]*\n)+)", block, re.MULTILINE)
    return [line.removeprefix("      - ").strip('"') for line in lines.splitlines()]


def known_settings() -> set[str]:
    """Every variable that `Settings` reads."""
    recorder = Recorder(
        {"DATABASE_URL": "postgresql://", "REDIS_URL": "unix:///dev/null", "FOOTFALL_PEPPER": "p" * 32}
    )
    Settings.from_mapping(recorder)
    return recorder.asked


def test_it_runs_the_two_stores_and_every_part_of_footfall() -> None:
    assert set(blocks("services")) == OWN | STORES


def test_every_queue_of_the_schedule_has_exactly_one_service() -> None:
    routed = {route["queue"] for route in celeryconfig.task_routes.values()}
    served = [words(name)[words(name).index("-Q") + 1] for name in ("worker", "upkeep")]
    assert sorted(served) == sorted({celeryconfig.task_default_queue, *routed})


def test_writers_are_named_by_their_container_so_that_there_may_be_many() -> None:
    assert words("worker")[words("worker").index("-n") + 1] == "write@%h"
    assert "container_name" not in COMPOSE
    assert "ports:" not in blocks("services")["worker"]


def test_the_commands_name_things_that_exist() -> None:
    python, option, module, *options = words("api")
    assert (python, option) == ("python", "-m")
    command = importlib.import_module(f"{module}.__main__").main
    assert command.make_context(module, options).params["host"] == "0.0.0.0"  # noqa: S104 - in a container
    for name in ("worker", "upkeep", "beat"):
        assert words(name)[:3] == ["celery", "-A", "worker"]
    assert importlib.import_module("worker.celery").app.main == "footfall"
    assert words("migrate") == ["footfall", "migrate"]


def test_the_environment_is_what_settings_read_no_more_and_no_less() -> None:
    (shared,) = re.findall(r"^x-footfall:.*?\n  environment:\n(.*?)\n\n", COMPOSE, re.DOTALL | re.MULTILINE)
    assert set(ENVIRONMENT_LINE.findall(shared)) == known_settings()


def test_what_the_operator_sets_is_a_setting_or_the_password_of_the_database() -> None:
    assert set(INTERPOLATED.findall(COMPOSE)) <= known_settings() | {"POSTGRES_PASSWORD"}


@pytest.mark.parametrize("secret", ["POSTGRES_PASSWORD", "FOOTFALL_PEPPER", "FOOTFALL_JWT_SECRET"])
def test_a_secret_has_no_default_and_is_asked_for_when_missing(secret: str) -> None:
    uses = re.findall(rf"\$\{{{secret}([^}}]*)\}}", COMPOSE)
    assert uses
    assert all(re.match(r":?\?set ", use) for use in uses)


def test_redis_keeps_the_promises_of_the_embedded_one() -> None:
    command = words("redis")
    options = dict(zip(command[1::2], command[2::2], strict=True))
    promised = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy", "save")
    assert {name: options[f"--{name}"] for name in promised} == {
        name: REDIS_SETTINGS[name] for name in promised
    }


def test_postgres_logs_as_little_as_the_embedded_one() -> None:
    on_tcp = {"max_connections", "unix_socket_permissions"}
    wanted = {f"-c{name}={value}" for name, value in POSTGRES_SETTINGS.items() if name not in on_tcp}
    assert wanted == set(words("postgres")[1:])


@pytest.mark.parametrize("service", sorted(OWN | STORES))
def test_no_service_runs_as_root_or_writes_outside_its_volumes(service: str) -> None:
    (shared,) = re.findall(r"^x-footfall:.*?\n\n", COMPOSE, re.DOTALL | re.MULTILINE)
    block = blocks("services")[service]
    text = block + shared if "<<: *footfall" in block else block
    assert "read_only: true" in text
    assert "cap_drop: [ALL]" in text
    users = re.findall(r"^    user: (\S+)$", block, re.MULTILINE)
    if service in OWN:
        users = users or re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users
    assert not users[-1].startswith(("root", "0"))


def test_only_the_api_is_published_and_on_loopback() -> None:
    published = re.findall(r"^    ports: (.*)$", COMPOSE, re.MULTILINE)
    assert len(published) == 1
    assert re.match(r'\["127\.0\.0\.1:8000-80\d\d:8000"\]', published[0]), "a port for each of several"


def test_every_part_waits_for_the_migration_and_both_stores() -> None:
    assert "migrate: {condition: service_completed_successfully}" in COMPOSE
    for name in sorted(OWN - {"migrate"}):
        assert "depends_on: *after-migration" in blocks("services")[name]


def test_the_image_holds_what_the_code_looks_for_beside_itself() -> None:
    copied = {word for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()}
    needed = {"api", "footfall", "migrations", "worker", "celeryconfig.py", "pyproject.toml"}
    assert needed | {"requirements.lock"} <= copied
    kept = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied - {"./"} == kept
    assert all((ROOT / name).exists() for name in kept)


def test_the_image_installs_hashed_wheels_and_not_the_embedded_servers() -> None:
    assert "--require-hashes --only-binary=:all:" in DOCKERFILE
    (left_out,) = re.findall(r"!/\^\((.*)\)==/", DOCKERFILE)
    lock = (ROOT / "requirements.lock").read_text()
    for name in left_out.split("|"):
        assert re.search(rf"^{name}==", lock, re.MULTILINE), name
