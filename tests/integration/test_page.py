"""The page in a real browser."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from dockmirror.client_config.clients import CLIENTS

from .parts.browser import browser, find_obstacles
from .parts.images import image
from .parts.mirror import Mirror
from .parts.programs import require
from .parts.registry import Registry

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chrome]:
    """A browser of somebody who reads English."""
    require("chromium", "chromedriver")
    with browser("en") as driver:
        yield driver


@pytest.mark.parametrize(("name", "width"), [("", 360), ("docker", 768), ("", 1280)])
def test_loads(mirror: Mirror, chromium: Chrome, name: str, width: int) -> None:
    """The page loads without a message on the console, and is no wider than the window."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get(f"http://{mirror.host(name)}/")
    assert chromium.find_element(By.TAG_NAME, "h1").text == mirror.host(name)
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
    colour = chromium.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert colour != "rgba(0, 0, 0, 0)", "the style was refused"


def test_unknown_host(mirror: Mirror, chromium: Chrome) -> None:
    """An unknown host has links to those that exist."""
    size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get(f"http://{mirror.host('typo')}/")
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= 360
    assert mirror.host("typo").partition(":")[0] in chromium.find_element(By.CLASS_NAME, "note").text
    assert all("404" in each["message"] for each in chromium.get_log("browser"))
    chromium.find_element(By.LINK_TEXT, mirror.host("docker")).click()
    assert chromium.find_element(By.TAG_NAME, "h1").text == mirror.host("docker")


@pytest.mark.parametrize("host", ["with a clipboard", "without one"])
def test_copies(mirror: Mirror, chromium: Chrome, host: str) -> None:
    """A button copies its lines, also where the browser gives a page without TLS no clipboard."""
    own = f"127.0.0.1:{mirror.port}" if host == "with a clipboard" else mirror.host()
    chromium.get(f"http://{own}/")
    assert chromium.execute_script("return !!navigator.clipboard") is (host == "with a clipboard")
    if host == "with a clipboard":
        chromium.execute_cdp_cmd(
            "Browser.grantPermissions",
            {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": f"http://{own}"},
        )
    unfold(chromium)
    figure = chromium.find_element(By.CSS_SELECTOR, "#docker details figure")
    button = figure.find_element(By.TAG_NAME, "button")
    button.click()
    WebDriverWait(chromium, 10).until(lambda _: button.text == "Copied")
    lines = figure.find_element(By.TAG_NAME, "pre").text
    assert f'"http://{own}"' in lines
    assert pasted(chromium).strip() == lines.strip()


def test_copies_each(mirror: Mirror, chromium: Chrome) -> None:
    """Every block of lines has a button that copies all of it, and nothing else."""
    chromium.get(f"{mirror.url}/")
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    chromium.execute_cdp_cmd("Browser.grantPermissions", {"permissions": permissions, "origin": mirror.url})
    unfold(chromium)
    figures = chromium.find_elements(By.TAG_NAME, "figure")
    assert len(figures) > len(CLIENTS)
    for figure in figures:
        button = figure.find_element(By.TAG_NAME, "button")
        chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        WebDriverWait(chromium, 10).until(partial(_says, button, "Copied"))
        copied = chromium.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
        code = figure.find_element(By.TAG_NAME, "code")
        assert copied == f"{code.get_property('textContent')}\n"
    assert chromium.get_log("browser") == []


def _says(element: WebElement, words: str, _: Chrome) -> bool:
    return element.text == words


def pasted(chromium: Chrome) -> str:
    """The text that Ctrl+V pastes."""
    chromium.execute_script("document.body.prepend(document.createElement('textarea'))")
    area = chromium.find_element(By.TAG_NAME, "textarea")
    area.send_keys("\ue009", "v")
    return str(area.get_property("value"))


def unfold(chromium: Chrome) -> None:
    """Show all tabs at once, and what is folded in them."""
    chromium.execute_script(
        "document.querySelectorAll('.panel').forEach(each => { each.style.display = 'block' });"
        "document.querySelectorAll('details').forEach(each => { each.open = true })"
    )


def test_without_script(mirror: Mirror) -> None:
    """Without scripts the page has the browser's language and no buttons, and its tabs open by keys."""
    require("chromium", "chromedriver")
    with browser("zh-CN", script=False) as driver:
        driver.get(f"http://{mirror.host()}/?client=containerd")
        assert driver.find_element(By.TAG_NAME, "html").get_attribute("lang") == "zh"
        assert not any(button.is_displayed() for button in driver.find_elements(By.TAG_NAME, "button"))
        driver.find_element(By.ID, "client-containerd").send_keys(Keys.ARROW_RIGHT)
        shown = [name for name in CLIENTS if driver.find_element(By.ID, name).is_displayed()]
        assert shown == ["k3s"]
        driver.find_element(By.CSS_SELECTOR, "#k3s summary").send_keys(Keys.ENTER)
        assert "registries.yaml" in driver.find_element(By.CSS_SELECTOR, "#k3s details figure").text
        driver.find_element(By.CLASS_NAME, "action").click()
        assert driver.find_element(By.CSS_SELECTOR, "#test p:last-child a").is_displayed()


def test_an_address_opens_its_tab(mirror: Mirror, chromium: Chrome) -> None:
    chromium.get("about:blank")
    chromium.get(f"{mirror.url}/#machine")
    assert [name for name in CLIENTS if chromium.find_element(By.ID, name).is_displayed()] == ["machine"]


@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("zh", "dark")])
def test_everybody_can_use_it(mirror: Mirror, chromium: Chrome, language: str, scheme: str) -> None:
    """axe objects to nothing, in all tabs, by day and by night; a desktop shows it in two screens at most."""
    size = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    prefer(chromium, scheme)
    chromium.get(f"{mirror.url}/?lang={language}&test=")
    assert chromium.execute_script("return document.documentElement.scrollHeight") <= 1600
    unfold(chromium)
    assert find_obstacles(chromium) == []
    prefer(chromium, "light" if scheme == "dark" else "dark")
    assert find_obstacles(chromium, "color-contrast") == []


def prefer(chromium: Chrome, scheme: str) -> None:
    """Have pages shown in light or dark colours."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_a_page_that_was_refused_its_events_asks_again(mirror: Mirror) -> None:
    """By then, fewer pages may be open, or a proxy in front may reach the mirror again."""
    require("chromium", "chromedriver")
    request = f"GET /pulls/events HTTP/1.1\r\nHost: {mirror.host()}\r\n\r\n".encode()
    with browser("en") as driver:
        with ExitStack() as others:
            status = b"HTTP/1.1 200"
            while status == b"HTTP/1.1 200":
                other = others.enter_context(socket.create_connection(("127.0.0.1", mirror.port)))
                other.sendall(request)
                status = other.recv(12)
            driver.get(f"{mirror.url}/")
            WebDriverWait(driver, 30).until(
                lambda driver: any("503" in each["message"] for each in driver.get_log("browser"))
            )
        mirror.client("docker").manifest("library/asked-for-later", "1")
        WebDriverWait(driver, 30).until(
            lambda driver: "asked-for-later" in driver.find_element(By.ID, "pull-list").text
        )


def test_my_client(mirror: Mirror, token_registry: Registry, chromium: Chrome) -> None:
    """The test waits for a pull, and turns green with what the mirror saw of it."""
    pushed = image("pulled to see it")
    token_registry.push("library/seen-live", pushed, "1")
    chromium.get(f"{mirror.url}/")
    chromium.find_element(By.CLASS_NAME, "action").click()
    assert chromium.find_elements(By.CSS_SELECTOR, "#test-result .waiting")
    client = mirror.client()
    client.manifest("docker.io/library/seen-live", "1")
    for blob in pushed.blobs:
        client.blob("docker.io/library/seen-live", blob.digest)
    result = WebDriverWait(chromium, 30).until(
        lambda driver: driver.find_element(By.CSS_SELECTOR, "#test-result .served")
    )
    assert "seen-live:1 · " in result.text
    assert "seen-live:1 · " in chromium.find_element(By.ID, "pull-list").text
