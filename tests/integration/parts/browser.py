"""Chromium without a window, which asks nobody but the mirror."""

from __future__ import annotations

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
