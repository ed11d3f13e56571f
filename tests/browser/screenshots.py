"""Pictures of the dashboard for the documentation: `python -m tests.browser.screenshots FOLDER`.

The whole site over 30 days of `footfall demo-data`, on a phone and on a desk, in light and dark, from an
instance that is thrown away. Look at them before they are kept.
"""

import sys
import tempfile
from pathlib import Path

from tests.browser.chromium import Browser, browser
from tests.functional.instance import Instance

WIDTHS = (360, 1440)
SCHEMES = {"light": False, "dark": True}
PAGE = "/mod-dashboard?range=30d"
MOST_BYTES = 400_000


def main(folder: Path) -> None:
    """Take all pictures."""
    with (
        tempfile.TemporaryDirectory(prefix="footfall-shots-", dir="/tmp") as scratch,
        Instance(Path(scratch) / "data").running() as instance,
        browser(instance.url, Path(scratch) / "profile") as page,
    ):
        made = instance.cli("demo-data")
        if made.returncode != 0:
            raise SystemExit(made.stderr)
        page.go("/login")
        page.log_in(instance.cli("token", "--role", "moderator", "--subject", "moderator").stdout.strip())
        shoot(page, folder)


def shoot(page: Browser, folder: Path) -> None:
    """All sizes and colours of the page."""
    for width in WIDTHS:
        for scheme, is_dark in SCHEMES.items():
            page.look(width, dark=is_dark)
            page.go(PAGE)
            file = folder / f"dashboard-{width}-{scheme}.png"
            page.screenshot(file)
            size = file.stat().st_size
            print(f"{file}: {size:,} bytes")
            if size > MOST_BYTES:
                raise SystemExit(f"{file} is over {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    chosen = Path(sys.argv[1])
    chosen.mkdir(parents=True, exist_ok=True)
    main(chosen)
