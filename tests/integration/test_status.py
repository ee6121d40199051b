"""The status of a mirror that runs, in a real browser."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from .conftest import MakeChain
from .parts.browser import browser, find_obstacles, set_window
from .parts.chain import Chain
from .parts.command import dockmirror
from .parts.images import image
from .parts.process import free_port, wait_until
from .parts.programs import require
from .parts.stream import fetched

pytestmark = pytest.mark.integration

LARGE = 8_000_000
REPOSITORY = "library/slow"


@pytest.fixture(scope="module")
def port() -> int:
    """The port of the operations endpoint."""
    return free_port()


@pytest.fixture(scope="module")
def chain(chains: MakeChain, port: int) -> Iterator[Chain]:
    """A mirror of two processes that is looked at."""
    budget = {"images": "docker.io/library/told", "pulls": 1000, "window": "1d"}
    with chains(operations=f"tcp:{port}:interface=127.0.0.1", workers=2, budget=[budget]) as chain:
        yield chain


@pytest.fixture(scope="module", params=["en", "zh-CN"])
def chromium(request: pytest.FixtureRequest) -> Iterator[Chrome]:
    """A browser of somebody who reads that language."""
    require("chromium", "chromedriver")
    with browser(request.param) as driver:
        yield driver


def lightness(chromium: Chrome) -> int:
    """The lightness of the page's background."""
    colour = run(chromium, "return getComputedStyle(document.body).backgroundColor")
    return sum(int(each) for each in str(colour).removeprefix("rgb(").removesuffix(")").split(","))


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_loads(chain: Chain, port: int, chromium: Chrome, width: int, scheme: str) -> None:
    """The page loads without a message on the console, in the browser's language and colour scheme."""
    spoken = str(run(chromium, "return navigator.language")).partition("-")[0]
    pushed = image(f"seen {width} {spoken}")
    chain.registry.push("library/seen", pushed, "latest")
    fetched(chain.mirror, "library/seen", pushed.layers[0].digest)
    set_window(chromium, width, scheme)
    chromium.get(f"http://127.0.0.1:{port}/")
    assert chromium.find_element(By.TAG_NAME, "html").get_attribute("lang") == spoken
    assert chromium.find_element(By.TAG_NAME, "h1").text == f"127.0.0.1:{port}"
    assert "docker.io" in chromium.find_element(By.ID, "upstream-docker").text
    assert chromium.get_log("browser") == []
    assert run(chromium, "return document.documentElement.scrollWidth") <= width
    assert (lightness(chromium) > 600) if scheme == "light" else (lightness(chromium) < 150)


def shows_the_bar_under_the_pointer(chromium: Chrome) -> bool:
    """Point elsewhere, then to the last bar; False if the page drew the bars anew in that moment."""
    bar = chromium.find_element(By.CSS_SELECTOR, "#hours g:last-of-type")
    title = chromium.find_element(By.CSS_SELECTOR, "#hours figcaption")
    ActionChains(chromium).scroll_to_element(bar).move_to_element(title).move_to_element(bar).perform()
    shown = chromium.find_element(By.CSS_SELECTOR, "#hours output").text
    return bool(shown) and shown == bar.find_element(By.TAG_NAME, "title").get_property("textContent")


def has_changed(shown: WebElement, before: str, _: object) -> bool:
    """Return True if the element has another text than before."""
    return shown.text != before


def test_everybody_can_use_it(chain: Chain, port: int) -> None:
    """axe finds nothing to object to by day and by night; a bar shows its values under the pointer."""
    require("chromium", "chromedriver")
    pushed = image("pulled on the page")
    chain.registry.push("library/told", pushed, "1")
    client = chain.mirror.client()
    client.manifest("docker.io/library/told", "1")
    for blob in pushed.blobs:
        assert client.blob("docker.io/library/told", blob.digest).status == 200
    with browser("en") as chromium:
        find = partial(chromium.find_element, By.CSS_SELECTOR)
        for width, scheme, language in ((390, "dark", "en"), (1280, "light", "zh")):
            set_window(chromium, width, scheme)
            chromium.get(f"http://127.0.0.1:{port}/?lang={language}")
            WebDriverWait(chromium, 30).until(lambda _: "library/told" in find("#images").text)
            assert "127.0.0.1" in find("#clients").text
            assert find("#budgets tbody th").text == "127.0.0.1"
            counted = find("#budgets tbody td").text
            client.manifest("docker.io/library/told", "1")
            WebDriverWait(chromium, 30).until(partial(has_changed, find("#budgets tbody td"), counted))
            for each in chromium.find_elements(By.TAG_NAME, "summary"):
                each.click()
            assert find_obstacles(chromium) == []
            WebDriverWait(chromium, 30).until(lambda _: shows_the_bar_under_the_pointer(chromium))
            cells = chromium.find_elements(By.CSS_SELECTOR, "#hours tbody tr:first-child td")
            assert int(cells[0].text) > 0
            assert run(chromium, "return document.documentElement.scrollWidth") <= width
        assert chromium.get_log("browser") == []


def test_it_moves(chain: Chain, port: int, chromium: Chrome) -> None:
    """The bar of a blob grows while it is on its way; ``dockmirror top`` has it too."""
    spoken = run(chromium, "return navigator.language")
    pushed = image(f"slow {spoken}", layers=(LARGE,))
    chain.registry.push(REPOSITORY, pushed, "latest")
    blob = pushed.layers[0]
    with ThreadPoolExecutor(1) as pool, chain.blobs.valve.narrow(50_000):
        pull = pool.submit(fetched, chain.mirror, REPOSITORY, blob.digest)
        wait_until(lambda: json.loads(told(port, "/status.json"))["fetches"] != [], "it is on its way")
        chromium.get(f"http://127.0.0.1:{port}/status")
        assert REPOSITORY in chromium.find_element(By.ID, "fetches").text
        assert of_the_bar(chromium, "max") == len(blob.data)
        printed = dockmirror(chain.mirror, "top").stdout
        assert f"docker.io/{REPOSITORY}" in printed.partition("Downloads")[2]
        first = of_the_bar(chromium, "value")
        WebDriverWait(chromium, 30).until(lambda _: of_the_bar(chromium, "value") > first)
        chain.blobs.valve.open()
    assert pull.result() == blob.digest
    bars = "return document.querySelectorAll('#fetches progress').length"
    WebDriverWait(chromium, 30).until(lambda _: run(chromium, bars) == 0)
    assert chromium.get_log("browser") == []


def test_new_settings_may_add_a_section(chain: Chain, port: int, chromium: Chrome) -> None:
    """A page that was opened before goes on without it."""
    mirror, budget = chain.mirror, chain.mirror.setting("budget")

    def reload(budgets: list[dict[str, object]]) -> None:
        mirror.configure(budget=budgets)
        os.kill(mirror.pid, signal.SIGHUP)
        wait_until(
            lambda: len(json.loads(told(port, "/status.json"))["budgets"]) == len(budgets),
            "they are in force",
        )

    reload([])
    chromium.get(f"http://127.0.0.1:{port}/")
    assert not chromium.find_elements(By.ID, "budgets")
    reload(budget)
    uptime = chromium.find_element(By.CSS_SELECTOR, "#mirror .facts tr:nth-of-type(2) td")
    for _ in range(2):
        WebDriverWait(chromium, 30).until(partial(has_changed, uptime, uptime.text))
    assert chromium.get_log("browser") == []
    chromium.refresh()
    assert chromium.find_element(By.ID, "budgets").is_displayed()


def test_no_answer(chain: Chain, port: int, chromium: Chrome) -> None:
    """A note is shown while the mirror does not answer; the page goes on when it does again."""
    chromium.get(f"http://127.0.0.1:{port}/")
    stale = chromium.find_element(By.ID, "stale")
    assert not stale.is_displayed()
    with chain.mirror.killed():
        WebDriverWait(chromium, 30).until(lambda _: stale.is_displayed())
    WebDriverWait(chromium, 30).until(lambda _: not stale.is_displayed())
    chromium.get_log("browser")  # in which it says so, too


def of_the_bar(chromium: Chrome, name: str) -> float:
    """The value of an attribute of the progress bar on the page."""
    return float(run(chromium, f"return document.querySelector('#fetches progress').{name}"))


def run(chromium: Chrome, script: str) -> Any:
    """Run a script in the page and return its result."""
    return chromium.execute_script(script)


def told(port: int, path: str, host: str = "") -> str:
    """The document at that path, requested by that host name."""
    asked = Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host} if host else {})
    with build_opener(ProxyHandler({})).open(asked, timeout=30) as response:
        return str(response.read().decode())


def test_other_ports_and_hosts(chain: Chain, port: int) -> None:
    """The status is neither on the mirror's own port nor given to foreign host names."""
    assert "docker.io" in told(port, "/status.json", "mirror.test")
    for number, path, host in (
        (chain.mirror.port, "/status", "mirror.test"), (chain.mirror.port, "/status.json", "127.0.0.1"),
        (port, "/", "rebound.example"), (port, "/status.json", "rebound.example:9464"),
    ):  # fmt: skip
        with pytest.raises(HTTPError) as refused:
            told(number, path, host)
        with refused.value as error:
            assert error.code in (403, 404)
            assert "docker.io" not in error.read().decode()


def test_without_script(chain: Chain, port: int) -> None:
    """The page can be read without scripts."""
    require("chromium", "chromedriver")
    with browser("en", script=False) as driver:
        driver.get(f"http://127.0.0.1:{port}/")
        assert driver.find_element(By.ID, "cache").is_displayed()
        assert driver.find_element(By.ID, "budgets").is_displayed()
        assert not driver.find_element(By.ID, "stale").is_displayed()
