"""The React hooks in a real browser against the real API, with the oldest and the newest React."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from tests.browser.chromium import Browser
from tests.browser.site import SCRIPT, Site, serving
from tests.factory import EVENTS
from tests.functional.instance import Instance
from tests.waiting import wait_until

WEB = Path(__file__).resolve().parent.parent.parent / "web"
VIEWS = text(f"""
    SELECT e.entity_type, e.external_id
    FROM {EVENTS} AS v JOIN entities AS e ON e.id = v.entity_id
    WHERE v.outcome = 'counted' AND e.external_id LIKE :name
""")
REACTS = ("18", "19")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """{React's version: the test page's script}."""
    if not (WEB / "node_modules").exists() or shutil.which("node") is None:
        missing = "the hooks' packages are missing; this installs them: make web"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("bundles")
    subprocess.run(["node", "test/chromium/build.js", folder], cwd=WEB, check=True, timeout=120)
    return {react: (folder / f"react-{react}.js").read_bytes() for react in REACTS}


@pytest.fixture
def site(instance: Instance, bundles: dict[str, bytes]) -> Iterator[Site]:
    """A site whose pages have nothing but the bundle."""
    with serving(instance.url) as served:
        served.files = {f"/react-{react}.js": bundle for react, bundle in bundles.items()}
        yield served


@pytest.mark.parametrize("with_script", [False, True], ids=["alone", "beside the script"])
@pytest.mark.parametrize("react", REACTS)
def test_pages_and_content_are_counted_once_in_strict_mode(
    visitor: Browser, site: Site, engine: Engine, react: str, with_script: bool
) -> None:
    name = uuid4().hex[:12]
    script = SCRIPT.format(attributes="") if with_script else ""
    site.head = f'{script}<script defer src="/react-{react}.js"></script>'
    visitor.driver.get(f"{site.url()}/{name}/a?course={name}")
    assert visitor.text("main h1").startswith(react)
    visitor.wait(lambda: counts(visitor) == ["1 views", "1 views"], "the count")
    visitor.one("#toggle").click()
    visitor.wait(lambda: counts(visitor) == [], "no course")
    visitor.one("#toggle").click()
    visitor.wait(lambda: counts(visitor) == ["1 views", "1 views"], "the count again")
    visitor.one("#go").click()
    visitor.one("#again").click()
    expected = {("page", f"/{name}/a"): 1, ("page", f"/{name}/b"): 1, ("course", name): 1}
    wait_until(lambda: views(engine, name).total() >= 3, "the views")
    visitor.driver.get(f"{site.url()}/{name}/c?course={name}")
    visitor.wait(lambda: counts(visitor) == ["2 views", "2 views"], "another page load is another view")
    expected |= {("page", f"/{name}/c"): 1, ("course", name): 2}
    wait_until(lambda: views(engine, name).total() >= 5, "the views")
    assert views(engine, name) == expected
    assert [text for text in visitor.complaints() if "React DevTools" not in text] == []


def counts(page: Browser) -> list[str]:
    """What the components of the course show."""
    shown: list[str] = page.script("return [...document.querySelectorAll('.course')].map((p) => p.innerText)")
    return shown


def views(engine: Engine, name: str) -> Counter[tuple[str, str]]:
    """{(type, id): views} of what has the name in it."""
    with engine.connect() as connection:
        return Counter(tuple(row) for row in connection.execute(VIEWS, {"name": f"%{name}%"}))
