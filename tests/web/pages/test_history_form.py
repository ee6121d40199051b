"""The form of the history's page: every text gives a filter or names the field that is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.app.naming import complete_image_pattern
from dockmirror.config.load import load
from dockmirror.history.pulls import PullFilter
from dockmirror.history.tracker import AddressDetail
from dockmirror.http.server_request import parse_pairs
from dockmirror.web.pages.history_form import TIMES, FormReader, HistoryForm, InvalidForm

SETTINGS = load({}, {})
NOW = 1_790_000_100.0
DIGEST = f"sha256:{'a' * 64}"
MIDNIGHT = NOW // 86_400 * 86_400


def complete(text: str) -> str:
    return complete_image_pattern(text, SETTINGS)


def read(form: HistoryForm, addresses: AddressDetail = "full", days: int = 30) -> PullFilter:
    """Return the filter of a form."""
    return FormReader(complete, days, addresses).read(form, NOW)[0]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ({}, {}),
        ({"client": "10.1.0.7"}, {"client": "10.1.0.7"}),
        ({"client": "10.1.0.7/16"}, {"client": "10.1.0.0/16"}),
        ({"client": "2001:DB8:0::1"}, {"client": "2001:db8::1"}),
        ({"client": "::ffff:10.1.0.7"}, {"client": "10.1.0.7"}),
        ({"user": "alice"}, {"user": "alice"}),
        ({"image": "nginx"}, {"image": "docker.io/library/nginx"}),
        ({"image": "nginx:1.27"}, {"image": "docker.io/library/nginx:1.27"}),
        ({"image": "ghcr.io/team/*"}, {"image": "ghcr.io/team/*"}),
        ({"image": DIGEST}, {"digest": DIGEST}),
        ({"image": f"nginx@{DIGEST}"}, {"image": "docker.io/library/nginx", "digest": DIGEST}),
        ({"outcome": "failed"}, {"outcome": "failed"}),
        ({"time": "hour"}, {"since": NOW - 3600}),
        ({"time": "day"}, {"since": NOW - 86_400}),
        ({"time": "week"}, {"since": MIDNIGHT - 6 * 86_400}),
        ({"time": "month"}, {"since": MIDNIGHT - 29 * 86_400}),
    ],
)
def test_what_is_typed_is_a_filter(typed: dict[str, str], found: dict[str, Any]) -> None:
    """A week and a month are whole days in UTC, today included."""
    assert read(HistoryForm(**typed)) == PullFilter(**{"since": MIDNIGHT - 6 * 86_400, **found})


@pytest.mark.parametrize(
    ("days", "time", "since"),
    [
        (7, "week", MIDNIGHT - 6 * 86_400),
        (7, "month", MIDNIGHT - 6 * 86_400),
        (3, "week", MIDNIGHT - 2 * 86_400),
        (1, "month", NOW - 86_400),
        (1, "hour", NOW - 3600),
    ],
)
def test_no_time_begins_before_the_pulls_that_are_kept(days: int, time: str, since: float) -> None:
    """Sums are kept for longer, and questions that need the pulls would have other answers."""
    form = HistoryForm(time=time)
    assert read(form, days=days).since == since
    assert FormReader(complete, days).reaches_back(form) == (TIMES[time] > days * 86_400)


def test_a_language_that_the_page_lacks_is_none() -> None:
    assert [HistoryForm.parse((("lang", each),)).lang for each in ("zh", "fr", "")] == ["zh", "", ""]


@pytest.mark.parametrize(
    ("addresses", "typed", "client"),
    [
        ("network", "10.1.2.3", "10.1.2.0/24"),
        ("network", "2001:db8:1:2::5", "2001:db8:1::/48"),
        ("network", "10.1.0.0/16", "10.1.0.0/16"),
        ("region", "eu-west", "eu-west"),
        ("none", "10.1.2.3", "10.1.2.3"),
    ],
)
def test_a_client_is_found_as_the_history_keeps_it(addresses: AddressDetail, typed: str, client: str) -> None:
    assert read(HistoryForm(client=typed), addresses).client == client


@pytest.mark.parametrize(
    ("typed", "wrong"),
    [
        ({"client": "10.1"}, ["client"]),
        ({"client": "10.1.0.0/33"}, ["client"]),
        ({"client": "10.1.0.0/16/2"}, ["client"]),
        ({"client": "eu-west"}, ["client"]),
        ({"user": "a" * 301}, ["user"]),
        ({"image": "NGINX"}, ["image"]),
        ({"image": f"nginx@sha256:{'a' * 63}"}, ["image"]),
        ({"image": "*" * 301}, ["image"]),
        ({"outcome": "lost"}, ["outcome"]),
        ({"time": "year"}, ["time"]),
        ({"after": "-1"}, ["after"]),
        ({"after": str(2**63)}, ["after"]),
        ({"client": "x", "image": "X", "time": "now"}, ["client", "image", "time"]),
    ],
)
def test_every_field_that_is_wrong_is_named(typed: dict[str, str], wrong: list[str]) -> None:
    with pytest.raises(InvalidForm) as raised:
        read(HistoryForm(**typed))
    assert list(raised.value.details) == wrong


TEXTS = st.text() | st.text("0123456789abcdef.:/*?[]@-", max_size=40)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "client": TEXTS, "user": TEXTS, "image": TEXTS, "outcome": TEXTS, "after": TEXTS,
        "time": st.sampled_from(list(TIMES)) | TEXTS,
    },
)  # fmt: skip


@given(FIELDS)
def test_any_text_is_a_filter_or_is_refused(typed: dict[str, str]) -> None:
    try:
        filter, after = FormReader(complete, 30).read(HistoryForm(**typed), NOW)
    except InvalidForm:
        return
    assert NOW - 30 * 86_400 <= filter.since < NOW
    assert 0 <= after < 2**63


@given(FIELDS)
def test_a_link_leads_to_its_form(typed: dict[str, str]) -> None:
    """Blanks around a text do not count; a change begins on the first page."""
    form = HistoryForm.parse(tuple(typed.items()))
    link = form.link(after=form.after)
    assert HistoryForm.parse(parse_pairs(link.partition("?")[2].encode())) == form
    assert link.isascii()
    assert not set("<>\"' \\") & set(link)
    assert "after=" not in form.link(user="bob")
