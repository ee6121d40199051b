"""The pages of images of a mirror that runs, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from .conftest import MakeChain, MakeDirectory
from .parts.accounts import ALICE, Account
from .parts.browser import browser, find_obstacles, set_window
from .parts.chain import Chain
from .parts.images import Image, image, index
from .parts.process import free_port
from .parts.programs import require

pytestmark = pytest.mark.integration

NAME = "docker.io/library/shown"
BROKEN_TIMES = """return Array.from(document.querySelectorAll("time"))
  .filter(each => each.getClientRects().length > 1).map(each => each.textContent);"""


@pytest.fixture(scope="module")
def port() -> int:
    """The port of the operations endpoint."""
    return free_port()


@pytest.fixture(scope="module")
def chain(chains: MakeChain, directory: MakeDirectory, port: int) -> Iterator[Chain]:
    """A mirror of two processes that shows what it holds, with a public and a private image in its cache."""
    tokens: Path = directory("tokens") / "tokens"
    tokens.write_text(f"ci:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}:write\n")
    settings = {"operations": f"tcp:{port}:interface=127.0.0.1", "api_tokens_file": str(tokens)}
    with chains(upstream={"public": True}, images=True, workers=2, **settings) as chain:
        shown, hidden = index("shown"), image("hidden")
        chain.registry.push("library/shown", shown, "1.27")
        chain.registry.push("private/hidden", hidden, "1")
        pull(chain, "library/shown", "1.27", shown.children[0])
        pull(chain, "private/hidden", "1", hidden, ALICE)
        yield chain


def pull(chain: Chain, repository: str, tag: str, pulled: Image, account: Account | None = None) -> None:
    """Pull an image, as a client of the virtual host does."""
    client = chain.mirror.client("docker", account)
    client.manifest(repository, tag)
    client.manifest(repository, pulled.digest)
    for blob in pulled.blobs:
        client.blob(repository, blob.digest)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chrome]:
    """A browser of somebody who reads English."""
    require("chromium", "chromedriver")
    with browser("en", script=True) as driver:
        yield driver


@pytest.mark.parametrize(
    ("width", "scheme", "language"),
    [(1280, "light", "en"), (1280, "dark", "zh"), (360, "light", "zh"), (360, "dark", "en")],
)
def test_everybody_can_use_them(
    chain: Chain, chromium: Chrome, port: int, width: int, scheme: str, language: str
) -> None:
    """The pages fit the window, and axe finds nothing to object to."""
    set_window(chromium, width, scheme)
    for host in (f"127.0.0.1:{chain.mirror.port}", f"127.0.0.1:{port}"):
        for path in ("/images/", f"/images/{NAME}", f"/images/{NAME}:1.27"):
            chromium.get(f"http://{host}{path}?lang={language}")
            assert "shown" in chromium.find_element(By.TAG_NAME, "main").text
            assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
            assert chromium.execute_script(BROKEN_TIMES) == [], path
            assert find_obstacles(chromium) == [], path
            assert chromium.get_log("browser") == []


def test_the_link_of_the_home_page_is_as_wide_as_the_parts_above_it(chain: Chain, chromium: Chrome) -> None:
    set_window(chromium, 1280, "light")
    chromium.get(f"http://127.0.0.1:{chain.mirror.port}/")
    link, part = (chromium.find_element(By.ID, name).size["width"] for name in ("images", "registries"))
    assert link == part


@pytest.mark.parametrize("width", [1280, 360])
def test_long_names_hide_no_figures(chain: Chain, chromium: Chrome, port: int, width: int) -> None:
    """They are wrapped: a table is as wide as the window, and needs no scrolling."""
    repository, tag, pulled = f"library/{'x' * 200}", "v" * 128, image("long")
    chain.registry.push(repository, pulled, tag)
    pull(chain, repository, tag, pulled)
    set_window(chromium, width, "light")
    for path in ("/images/", f"/images/docker.io/{repository}", f"/images/docker.io/{repository}:{tag}",
                 "/history"):  # fmt: skip

        def is_shown(driver: Chrome, path: str = path) -> bool:
            driver.get(f"http://127.0.0.1:{port}{path}")
            return repository in driver.find_element(By.TAG_NAME, "main").text.replace("\n", "")

        WebDriverWait(chromium, 30).until(is_shown)
        hidden = chromium.execute_script(
            "return Array.from(document.querySelectorAll('.wide'), e => e.scrollWidth - e.clientWidth)"
        )
        assert set(hidden) == {0}, path


def test_a_private_image_is_shown_to_operators_only(chain: Chain, chromium: Chrome, port: int) -> None:
    set_window(chromium, 1280, "light")
    chromium.get(f"http://127.0.0.1:{chain.mirror.port}/images/")
    assert "private/hidden" not in chromium.page_source
    chromium.get(f"http://127.0.0.1:{chain.mirror.port}/images/docker.io/private/hidden")
    assert "holds no such image" in chromium.page_source
    chromium.get_log("browser")
    chromium.get(f"http://127.0.0.1:{port}/images/")
    chromium.find_element(By.LINK_TEXT, "docker.io/private/hidden").click()
    assert chromium.find_element(By.TAG_NAME, "h1").text == "docker.io/private/hidden"


def test_an_operator_fetches_the_other_platform_and_pins(chain: Chain, chromium: Chrome, port: int) -> None:
    """With a token, which the browser sends from then on."""
    set_window(chromium, 1280, "light")
    page = f"http://127.0.0.1:{port}/images/{NAME}:1.27"
    chromium.get(f"http://ci:secret@127.0.0.1:{port}/images/{NAME}:1.27?action=warm")
    chromium.find_element(By.CSS_SELECTOR, "button.act").click()
    WebDriverWait(chromium, 30).until(lambda driver: driver.find_elements(By.CLASS_NAME, "notice"))
    assert chromium.find_element(By.CLASS_NAME, "notice").text == "The mirror fetches it now."

    def is_complete(driver: Chrome) -> bool:
        driver.get(page)
        return "incomplete" not in driver.find_element(By.TAG_NAME, "main").text

    WebDriverWait(chromium, 30).until(is_complete)
    chromium.find_element(By.LINK_TEXT, "Pin").click()
    chromium.find_element(By.CSS_SELECTOR, "button.act").click()
    WebDriverWait(chromium, 30).until(lambda driver: driver.find_elements(By.CLASS_NAME, "notice"))
    chromium.get(page)
    assert "Unpin" in chromium.find_element(By.TAG_NAME, "nav").text
    chromium.find_element(By.LINK_TEXT, "Delete").click()
    assert "is pinned" in chromium.find_element(By.CLASS_NAME, "failed").text
    assert find_obstacles(chromium) == []
