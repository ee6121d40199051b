"""Chromium without a window, which asks nobody but the mirror."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selenium import webdriver

from .mirror import DOMAIN

_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update",
    f"--host-resolver-rules=MAP *.{DOMAIN} 127.0.0.1, MAP {DOMAIN} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.*",
)  # fmt: skip


def browser(language: str, *, script: bool = True) -> webdriver.Chrome:
    """A new browser.

    :param script: whether it runs scripts.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for each in _OPTIONS:
        options.add_argument(each)
    preferences: dict[str, Any] = {"intl.accept_languages": language}
    if not script:
        preferences["profile.managed_default_content_settings.javascript"] = 2
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))


def set_window(chromium: webdriver.Chrome, width: int, scheme: str) -> None:
    """Set the window's width and its colour scheme."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


_RUN_AXE = """
var rules = arguments[0], done = arguments[1];
axe.run(rules.length ? { runOnly: rules } : {}).then(function (found) {
  done(found.violations.map(function (each) {
    return each.id + ": " + each.nodes.map(function (node) { return node.html; }).join(" | ");
  }));
});
"""


def find_obstacles(driver: webdriver.Chrome, *rules: str) -> list[str]:
    """Return what axe-core finds on the open page that keeps somebody from using it, by all rules or some."""
    driver.execute_script(_axe())
    found: list[str] = driver.execute_async_script(_RUN_AXE, rules)
    return found


@cache
def _axe() -> str:
    """Return axe-core, which ``tests/axe.txt`` installs in a package; nothing else of that is used."""
    package = find_spec("axe_playwright_python")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).with_name("axe.min.js").read_text("utf-8")
