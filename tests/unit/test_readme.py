"""What the README names exists, and what exists it names: settings, commands, targets, endpoints, files."""

import dataclasses
import re
from pathlib import Path

import click
import pytest
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from api.app import create_app
from footfall.cli import main
from footfall.errors import SettingsError
from footfall.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()
PROSE = re.sub(r"```.*?```", "", README, flags=re.DOTALL)

REQUIRED = {
    "DATABASE_URL": "postgresql://",
    "REDIS_URL": "unix:///dev/null",
    "FOOTFALL_PEPPER": "p" * 32,
}
SETTING_ROW = re.compile(r"^\| `([A-Z_]+)` \| (\S+) \| .+ \|$", re.MULTILINE)
ENDPOINT = re.compile(r"`(GET|POST|PUT|DELETE) (/[^`?]+)[^`]*`")
FILE = re.compile(r"(?<![\w/.])(?:(?:api|footfall|worker|tests|migrations)/[\w/.]*\w|[\w-]+\.(?:py|md|yml))")


class Recorder(dict[str, str]):
    """A mapping that remembers what it was asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.asked.add(key)
        return super().get(key, default)


def settings_table() -> dict[str, str]:
    """{variable: default} as the README has it, the default without its backticks."""
    section = README.partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = SETTING_ROW.findall(section)
    assert len(rows) == section.count("\n| `"), "a row of the table of settings has another form"
    return {name: default.strip("`") for name, default in rows}


def spoken_commands() -> list[list[str]]:
    """Every `footfall ...` in the text and in indented examples, by words."""
    found = re.findall(r"`(?:\.venv/bin/)?footfall ([a-z][^`]*)`", PROSE)
    found += re.findall(r"(?:bin/|api )footfall ([a-z][^)\n]*)", PROSE)
    return [command.split() for command in found]


def routes() -> MapAdapter:
    """The application's routes, to be asked whether they take a request."""
    return create_app(Settings.from_mapping(REQUIRED)).url_map.bind("localhost")


def test_the_table_of_settings_has_a_row_for_every_variable_that_is_read_and_no_other() -> None:
    recorder = Recorder(REQUIRED)
    Settings.from_mapping(recorder)
    table = settings_table()
    assert set(table) == recorder.asked
    assert len(table) == len(dataclasses.fields(Settings))


@pytest.mark.parametrize("variable", sorted(settings_table()))
def test_the_default_in_the_table_is_the_default(variable: str) -> None:
    default = settings_table()[variable]
    if default == "required":
        with pytest.raises(SettingsError, match=variable):
            Settings.from_mapping({name: value for name, value in REQUIRED.items() if name != variable})
        return
    spelled_out = "" if default == "none" else default
    assert Settings.from_mapping({**REQUIRED, variable: spelled_out}) == Settings.from_mapping(REQUIRED)
    if default == "none":
        field = variable.removeprefix("FOOTFALL_").lower()
        assert not getattr(Settings.from_mapping(REQUIRED), field)


def test_every_make_target_that_is_named_exists_and_the_two_that_matter_come_first() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:`|^    )make ([a-z]+)", README, re.MULTILINE)
    assert named[:2] == ["demo", "test"]
    assert set(named) <= targets


def test_every_command_that_is_named_exists_with_its_options() -> None:
    context = click.Context(main)
    for name, *words in spoken_commands():
        command = main.get_command(context, name)
        assert command is not None, name
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, name


def test_every_command_that_exists_is_named() -> None:
    assert set(main.list_commands(click.Context(main))) == {words[0] for words in spoken_commands()}


def test_every_endpoint_that_is_named_exists() -> None:
    known = routes()
    named = ENDPOINT.findall(README)
    assert named
    for method, path in named:
        concrete = re.sub(r"<[\w:]+>", "book", path).replace("...", "book/book")
        try:
            known.match(concrete, method)
        except HTTPException as error:
            pytest.fail(f"{method} {path}: {error.name}")


def test_every_endpoint_that_exists_is_named() -> None:
    named = {(method, re.sub(r"<[\w:]+>", "<>", path)) for method, path in ENDPOINT.findall(README)}
    app = create_app(Settings.from_mapping(REQUIRED))
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            assert (method, re.sub(r"<[\w:]+>", "<>", rule.rule)) in named, f"{method} {rule.rule}"


def test_every_file_that_is_named_exists() -> None:
    named = set(FILE.findall(PROSE))
    assert "footfall/writer.py" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_link_within_the_page_leads_somewhere() -> None:
    titles = re.findall(r"^## (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
