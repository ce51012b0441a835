"""Debian's Chromium, headless, driven by selenium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

__all__ = ["Browser", "missing_reason"]

#: Width and height of a screen on a desk, and of a telephone's.
WIDE, NARROW = (1280, 800), (390, 844)
#: Where screenshots go, if anybody wants them.
_FOLDER = os.environ.get("STARGATE_TEST_SCREENSHOTS")
_TIMEOUT = 30.0


def missing_reason() -> str | None:
    """Why this machine has no browser, with what to do about it; None when it has."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} not found; install with: apt-get install chromium chromium-driver"
    return None


class Browser:
    """A browser, and what a person does with it.

    Args:
        driver: selenium's.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.resize(WIDE)

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Browser]:
        """Start Chromium; it ends with the block."""
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for each in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
            options.add_argument(each)
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        driver.set_page_load_timeout(_TIMEOUT)
        try:
            yield cls(driver)
        finally:
            driver.quit()

    def resize(self, size: tuple[int, int]) -> None:
        """Give the page a size; a window cannot be as narrow as a telephone."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def go(self, url: str) -> None:
        """Open a page."""
        self.driver.get(url)

    def all(self, selector: str) -> list[WebElement]:
        """What a CSS selector finds."""
        found: list[WebElement] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def one(self, selector: str) -> WebElement:
        """The first that a CSS selector finds, once it is there."""
        self.until(lambda: self.all(selector), selector)
        return self.all(selector)[0]

    def text(self, selector: str = "body") -> str:
        """The text of an element."""
        return self.one(selector).text

    def click(self, selector: str) -> None:
        """Click, and wait for the next page."""
        self._and_wait(self.one(selector).click)

    def follow(self, text: str) -> None:
        """Click on a link by its text, and wait for the next page."""
        self._and_wait(self.driver.find_element(By.LINK_TEXT, text).click)

    def fill(self, selector: str, text: str) -> None:
        """Type into a field."""
        field = self.one(selector)
        field.clear()
        field.send_keys(text)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a list by its value."""
        self.one(f'{selector} option[value="{value}"]').click()

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until something is so.

        Raises:
            TimeoutException: it is not so in time. It says what, and what the page shows.
        """
        WebDriverWait(self.driver, _TIMEOUT, 0.1).until(lambda _: condition(), what)

    def fits(self) -> bool:
        """Whether the page needs no scrolling to the side."""
        script = "return document.documentElement.scrollWidth <= window.innerWidth"
        return bool(self.driver.execute_script(script))

    def take(self, name: str) -> None:
        """Take screenshots of the page, wide and narrow, where they are wanted; it must fit."""
        for word, size in (("wide", WIDE), ("narrow", NARROW)):
            self.resize(size)
            assert self.fits(), f"{name} is wider than {size[0]} pixels"
            if _FOLDER:
                self.driver.save_screenshot(str(Path(_FOLDER) / f"{name}-{word}.png"))
        self.resize(WIDE)

    def _and_wait(self, act: Callable[[], None]) -> None:
        self.driver.execute_script("window.stale = true")
        act()
        script = "return !window.stale && document.readyState === 'complete'"
        self.until(lambda: self.driver.execute_script(script), "the next page")
