"""Actions of operators on the pages: confirmed, not forged, and recorded."""

# mypy: allow-untyped-calls

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.store.pins import iter_pins
from dockmirror.store.warm_ups import iter_warm_ups
from tests.archive.packing import files
from tests.cli.shop import AMD, BASE, CONFIG, LAYER, NGINX
from tests.web.operations import CI, Endpoint, login, page_text

IMAGE = f"{NGINX}:1.27"
PAGE = f"/images/{IMAGE}"


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(tmp_path)


def form(endpoint: Endpoint, action: str, path: str = PAGE, token: str = CI) -> dict[str, str]:
    """Return the fields of the form that asks for confirmation."""
    answer = endpoint.get(f"{path}?action={action}", token)
    assert answer.status == 200
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', answer.body.decode()))


def done(endpoint: Endpoint, action: str, **fields: str) -> str:
    """Confirm an action, and return the text of the page that follows."""
    answer = endpoint.submit({**form(endpoint, action), **fields}, CI)
    assert answer.status == 200
    return page_text(answer.body)


def test_an_image_is_pinned_and_unpinned(endpoint: Endpoint) -> None:
    assert "The image is pinned." in done(endpoint, "pin", platforms="linux/amd64 linux/arm64")
    ((pin, _),) = iter_pins(endpoint.root)
    assert (str(pin), [str(each) for each in pin.platforms]) == (IMAGE, ["linux/amd64", "linux/arm64"])
    text = endpoint.text(PAGE)
    assert "Pinned yes" in text
    assert "Actions" not in text
    assert "Unpin Delete" in text
    done(endpoint, "unpin")
    assert list(iter_pins(endpoint.root)) == []
    assert endpoint.audit() == [("ci", "pin", IMAGE, "done"), ("ci", "unpin", IMAGE, "done")]


def test_a_removal_shows_what_it_deletes(endpoint: Endpoint) -> None:
    done(endpoint, "pin")
    shown = endpoint.text(f"{PAGE}?action=remove", CI)
    assert f"{NGINX}: the tags 1.27, 0 manifests and blobs" in shown
    assert f"{IMAGE} is pinned, and will be fetched again." in shown
    assert "Deleted; 0 B freed." in done(endpoint, "remove")
    assert endpoint.get(PAGE).status == 404
    assert endpoint.get(f"{PAGE}?action=remove", CI).error == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("action", ["warm", "refresh"])
def test_the_mirror_is_told_to_fetch(endpoint: Endpoint, action: str) -> None:
    done(endpoint, action)
    (waiting,) = iter_warm_ups(endpoint.root)
    assert (waiting.image, waiting.refresh) == (IMAGE, action == "refresh")


def test_an_image_that_is_not_held_is_fetched_from_the_list(endpoint: Endpoint) -> None:
    fields = form(endpoint, "warm&image=redis:7", "/images/")
    assert endpoint.submit(fields, CI).status == 200
    assert [each.image for each in iter_warm_ups(endpoint.root)] == ["docker.io/library/redis:7"]


def test_an_image_is_verified(endpoint: Endpoint) -> None:
    """A token that may read is enough."""
    fields = form(endpoint, "verify", token=login("reader"))
    good = page_text(endpoint.submit(fields, login("reader")).body)
    assert "4 contents, 6.8 kB: all of them match their digests." in good
    endpoint.shop.path(Digest.of(LAYER)).write_bytes(b"corrupt")
    bad = endpoint.submit(fields, login("reader"))
    assert f"1 of 4 contents are corrupt: {Digest.of(LAYER)}." in page_text(bad.body)
    assert endpoint.audit() == [("reader", "verify", IMAGE, "done")] * 2


def test_an_image_is_exported(endpoint: Endpoint) -> None:
    answer = endpoint.submit(form(endpoint, "export"), CI)
    assert (answer.status, answer["Content-Type"]) == (200, "application/x-tar")
    assert answer["Content-Disposition"] == 'attachment; filename="nginx.tar"'
    blobs = {data for name, data in files(answer.body).items() if name.startswith("blobs/")}
    assert blobs == {AMD, BASE, CONFIG, LAYER}
    incomplete = form(endpoint, "export", f"/images/{NGINX}:latest")
    assert endpoint.submit(incomplete, CI).error == (404, "MANIFEST_UNKNOWN")
    endpoint.shop.path(Digest.of(LAYER)).write_bytes(b"x" * len(LAYER))
    assert not endpoint.submit(form(endpoint, "export"), CI).whole


def test_another_language_leads_to_the_same_page(endpoint: Endpoint) -> None:
    for query in ("action=pin&image=docker.io%2Flibrary%2Fnginx%3A1.27", "q=nginx", "after=1"):
        path = "/images/" if query == "q=nginx" else f"/images/{NGINX}"
        body = endpoint.get(f"{path}?{query}", CI).body.decode()
        assert f'href="?{query}&lang=zh"' in body.replace("&amp;", "&")


def test_a_browser_reads_on_a_page_why_its_form_is_refused(endpoint: Endpoint) -> None:
    fields = {**form(endpoint, "pin"), "platforms": "amd64"}
    answer = endpoint.submit(fields, CI, "Accept: text/html,*/*;q=0.8")
    assert (answer.status, answer["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert "platforms: expected a platform such as linux/amd64" in page_text(answer.body)


def test_a_form_cannot_be_forged(endpoint: Endpoint) -> None:
    """It is for one token, one action and one image, from this site, and for an hour or two."""
    fields = form(endpoint, "remove")
    for change in ({"proof": ""}, {"proof": "0" * 64}, {"image": f"{NGINX}:latest"}, {"action": "pin"}):
        assert endpoint.submit({**fields, **change}, CI).error == (403, "DENIED")
    assert endpoint.submit(fields, CI, "Sec-Fetch-Site: cross-site").error == (403, "DENIED")
    assert endpoint.submit(fields, CI, "Sec-Fetch-Site: same-site").error == (403, "DENIED")
    assert endpoint.submit(fields).error == (401, "UNAUTHORIZED")
    assert endpoint.submit(fields, login("reader")).error == (403, "DENIED")
    endpoint.clock.advance(2 * 3600)
    assert endpoint.submit(fields, CI).error == (403, "DENIED")
    assert endpoint.get(PAGE).status == 200
    assert [(token, action) for token, action, _, _ in endpoint.audit()] == [
        (None, "POST /images/"),
        (None, "POST /images/"),
        ("reader", "POST /images/"),
    ]


def test_a_confirmation_needs_a_token(endpoint: Endpoint) -> None:
    asked = endpoint.get(f"{PAGE}?action=pin")
    assert (asked.status, asked["WWW-Authenticate"]) == (401, 'Basic realm="dockmirror operations"')
    assert endpoint.get(f"{PAGE}?action=pin", login("reader")).error == (403, "DENIED")
    assert endpoint.get(f"{PAGE}?action=other", CI).status == 400
    assert endpoint.get("/images/?action=pin", CI).status == 400
    assert endpoint.submit({**form(endpoint, "pin"), "platforms": "linux"}, CI).status == 400


def test_a_value_is_not_taken_for_html(endpoint: Endpoint) -> None:
    answer = endpoint.get("/images/?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert b"<script>alert" not in answer.body
