"""Debian's Chromium, driven by Selenium: of any size, light or dark, and watched for complaints."""

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
INSTALL = "apt-get update && apt-get install -y --no-install-recommends chromium chromium-driver"
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--lang=en-GB",
)
# A headless browser says so, and is counted as the bot that it is. Hosts of examples are this machine; and
# no attempt at https first, which nobody answers here.
VISITOR = (
    "--user-agent=Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable",
)
WAIT_SECONDS = 15.0
TALLEST = 12_000  # pixels of a page that is drawn as a whole


class Browser:
    """One window, with words for what tests do in it."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def go(self, path: str) -> None:
        """Open a path of the instance."""
        self.driver.get(self.url + path)

    def log_in(self, token: str) -> None:
        """Fill in the form that is shown, as a person would."""
        self.one("#token").send_keys(token)
        self.one("button.primary").click()
        self.wait(lambda: not self.all("#token"), "the page after the login")

    def look(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """Be a screen of that width, in light or dark."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self._cdp("Emulation.setEmulatedMedia", {"features": [scheme, still]})

    def one(self, selector: str) -> WebElement:
        """The first element of a CSS selector, waited for."""
        found: WebElement = self.wait(lambda: next(iter(self.all(selector)), None), selector)
        return found

    def all(self, selector: str) -> list[WebElement]:
        """All elements of a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def link(self, text: str) -> WebElement:
        """The link of that text."""
        return self.driver.find_element(By.LINK_TEXT, text)

    def text(self, selector: str) -> str:
        """What is shown of an element."""
        return self.one(selector).text

    def path(self) -> str:
        """Path and query of where we are."""
        parts = urlsplit(self.driver.current_url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def script(self, source: str, *arguments: object) -> Any:
        """The value of a piece of JavaScript."""
        return self.driver.execute_script(source, *arguments)

    def wait(self, condition: Any, what: str) -> Any:
        """The first true value of `condition`; an element that is replaced while it is read is read again."""
        waiting = WebDriverWait(
            self.driver, WAIT_SECONDS, ignored_exceptions=[StaleElementReferenceException]
        )
        return waiting.until(lambda _: condition(), f"waited for {what}")

    def screenshot(self, file: Path) -> None:
        """The whole page as a PNG."""
        height = min(int(self.script("return document.documentElement.scrollHeight")), TALLEST)
        width = int(self.script("return innerWidth"))
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self._cdp("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        file.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Errors and warnings of the console since the last call; violations of the policy are among them."""
        return [str(entry["message"]) for entry in self._log("browser")]

    def requested_hosts(self) -> set[str]:
        """host:port of every request since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        urls = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        return {urlsplit(url).netloc for url in urls if url.startswith(("http:", "https:", "ws"))}

    def _log(self, name: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.driver.get_log(name)  # type: ignore[no-untyped-call]
        return entries

    def _cdp(self, command: str, parameters: dict[str, Any]) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)


@contextmanager
def browser(url: str, folder: Path, flags: Sequence[str] = ()) -> Iterator[Browser]:
    """A browser of `url` with a profile of its own in `folder`, closed at the end."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, *flags, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, Service(str(DRIVER)))
    try:
        yield Browser(driver, url)
    finally:
        driver.quit()
