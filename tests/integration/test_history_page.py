"""The page of the history of a mirror that runs, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from .conftest import MakeChain
from .parts.browser import browser, find_obstacles, set_window
from .parts.chain import Chain
from .parts.images import image
from .parts.process import free_port
from .parts.programs import require

pytestmark = pytest.mark.integration

NAME = "docker.io/library/asked"


@pytest.fixture(scope="module")
def port() -> int:
    """The port of the operations endpoint."""
    return free_port()


@pytest.fixture(scope="module")
def chain(chains: MakeChain, port: int) -> Iterator[Chain]:
    """A mirror of two processes from which an image was pulled, and another one that its registry lacks."""
    with chains(operations=f"tcp:{port}:interface=127.0.0.1", workers=2) as chain:
        asked = image("asked")
        chain.registry.push("library/asked", asked, "1")
        client = chain.mirror.client()
        client.manifest(NAME, "1")
        for blob in asked.blobs:
            assert client.blob(NAME, blob.digest).status == 200
        assert client.manifest("docker.io/library/lacking", "1").status == 404
        yield chain


@pytest.fixture(scope="module")
def chromium(chain: Chain, port: int) -> Iterator[Chrome]:
    """A browser of somebody who reads English, after the pulls have been written."""
    require("chromium", "chromedriver")
    with browser("en") as driver:

        def are_written(_: Chrome) -> bool:
            driver.get(f"http://127.0.0.1:{port}/history")
            return NAME in driver.page_source and "lacking" in driver.page_source

        WebDriverWait(driver, 30).until(are_written)
        yield driver


@pytest.mark.parametrize(
    ("width", "scheme", "language"),
    [
        (1280, "light", "en"),
        (1280, "dark", "zh"),
        (800, "light", "zh"),
        (360, "light", "zh"),
        (360, "dark", "en"),
    ],
)
def test_everybody_can_use_it(chromium: Chrome, port: int, width: int, scheme: str, language: str) -> None:
    """The page fits the window, and axe finds nothing to object to: in answers, and in errors."""
    set_window(chromium, width, scheme)
    for query in ("client=127.0.0.0/8", "outcome=failed&time=day", "user=nobody", "client=127.0&image=X"):
        chromium.get(f"http://127.0.0.1:{port}/history?{query}&lang={language}")
        assert chromium.find_element(By.TAG_NAME, "html").get_attribute("lang") == language
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
        assert find_obstacles(chromium) == [], query
        messages = [each["message"] for each in chromium.get_log("browser")]
        assert all("400 (Bad Request)" in each for each in messages)


def test_an_operator_asks_with_the_keyboard(chromium: Chrome, port: int) -> None:
    """Names then narrow the question, an image leads to its page, and the language keeps the question."""
    set_window(chromium, 1280, "light")
    chromium.get(f"http://127.0.0.1:{port}/")
    chromium.find_element(By.LINK_TEXT, "What was pulled").click()
    chromium.find_element(By.ID, "client").send_keys("127.0.0.0/8", Keys.ENTER)
    answer = chromium.find_element(By.CLASS_NAME, "answer").text
    assert answer.startswith("2 pulls from 127.0.0.0/8 in the last 7 days, 1 of them failed: ")
    chromium.find_element(By.LINK_TEXT, "asked:1").click()
    answer = chromium.find_element(By.CLASS_NAME, "answer").text
    assert answer.startswith(f"1 pull of {NAME}:1 from 127.0.0.0/8 in the last 7 days: ")
    assert chromium.find_element(By.ID, "image").get_attribute("value") == f"{NAME}:1"
    chromium.find_element(By.LINK_TEXT, "中文").click()
    assert chromium.find_element(By.ID, "client").get_attribute("value") == "127.0.0.0/8"
    chromium.find_element(By.CSS_SELECTOR, ".pulls a.badge").click()
    assert chromium.find_element(By.TAG_NAME, "h1").text.startswith(f"{NAME}@sha256:")


def test_an_operator_sees_what_failed_and_why(chromium: Chrome, port: int) -> None:
    set_window(chromium, 1280, "light")
    chromium.get(f"http://127.0.0.1:{port}/history")
    Select(chromium.find_element(By.ID, "outcome")).select_by_visible_text("failed")
    Select(chromium.find_element(By.ID, "time")).select_by_visible_text("the last 24 hours")
    chromium.find_element(By.CSS_SELECTOR, "button.act").click()
    WebDriverWait(chromium, 30).until(lambda driver: "outcome=failed" in driver.current_url)
    assert chromium.find_element(By.CLASS_NAME, "answer").text.startswith(
        "1 failed pull in the last 24 hours"
    )
    (row,) = chromium.find_elements(By.CSS_SELECTOR, ".pulls tbody tr")
    assert row.text.startswith("lacking:1")
    assert "failed: Docker Hub has no such image or tag" in row.text


def test_what_is_wrong_has_the_focus(chromium: Chrome, port: int) -> None:
    chromium.get(f"http://127.0.0.1:{port}/history?client=127.0")
    field = chromium.switch_to.active_element
    assert field.get_attribute("value") == "127.0"
    described = str(field.get_attribute("aria-describedby"))
    assert chromium.find_element(By.ID, described).text.startswith("This is neither an address nor a network")


def test_the_status_page_leads_to_the_pulls_of_a_client(chromium: Chrome, port: int) -> None:
    chromium.get(f"http://127.0.0.1:{port}/status")
    chromium.find_element(By.CSS_SELECTOR, "#clients tbody a").click()
    WebDriverWait(chromium, 30).until(lambda driver: "/history" in driver.current_url)
    assert chromium.find_element(By.CLASS_NAME, "answer").text.startswith(
        "2 pulls from 127.0.0.1 in the last"
    )
