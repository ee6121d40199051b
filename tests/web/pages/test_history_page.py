"""The page of the history: a form, its answer in words and tables, and the newest pulls."""

# mypy: allow-untyped-calls

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from twisted.web.template import flattenString

from dockmirror.history.history_writer import HistoryBounds, HistoryWriter
from dockmirror.history.pulls import OTHERS, Pull, PullFilter, PullSums, SumKey
from dockmirror.history.reader import SqliteHistory
from dockmirror.history.tracker import PartState, make_number
from dockmirror.oci.digest import Digest
from dockmirror.web.pages.history_form import HistoryForm
from dockmirror.web.pages.history_page import SHOWN_PULLS, HistoryAnswer, HistoryView, render_history
from dockmirror.web.pages.page import LANGUAGES
from tests.cli.shop import INDEX, NGINX
from tests.history.kept import report
from tests.house import Answer
from tests.stacks import Outcome
from tests.web.operations import NOW, Endpoint, page_text

HOUR, DAY, MB = 3600.0, 86_400.0, 10**6
LIMITED = "rate limit exceeded for your network; try again in 20 s"


class Operators:
    """An operations endpoint with a history that the test writes."""

    def __init__(self, directory: Path) -> None:
        path = directory / "pulls.db"
        self._writer = HistoryWriter(path, HistoryBounds())
        self._count = 0
        self.endpoint = Endpoint(directory, SqliteHistory(path, lambda: NOW))
        self.path = path

    def pull(self, age: float, reason: str = "", **fields: Any) -> int:
        """Write a pull that began so many seconds ago, and return its number."""
        self._count += 1
        began = NOW - age
        number = make_number(began, 1, self._count)
        state = PartState(began + 1, reason=reason)
        self._writer.write([report(number, state=state, last=began + 1, **fields)], NOW)
        return number

    def get(self, query: str = "", *headers: str) -> Answer:
        return self.endpoint.get(f"/history{query}", *headers)

    def text(self, query: str = "") -> str:
        """Return the text of an answer."""
        answer = self.get(query)
        assert answer.status == 200
        return page_text(answer.body)

    def links(self, query: str = "") -> list[str]:
        """Return the addresses to which an answer leads."""
        return [unescape(each) for each in re.findall('href="([^"]*)"', self.get(query).body.decode())]

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
def operators(tmp_path: Path) -> Iterator[Operators]:
    """The pulls of two networks in the last days."""
    found = Operators(tmp_path)
    team = {"registry": "ghcr.io", "repository": "team/app", "client": "10.1.0.9", "user": "alice"}
    found.pull(8 * DAY, client="10.1.0.8", cached_bytes=900 * MB)
    found.pull(2 * DAY, client="10.1.7.8", cached_bytes=300 * MB, saved_pulls=2, digest=str(Digest.of(INDEX)))
    found.pull(5 * HOUR, **team, upstream_bytes=100 * MB, upstream_seconds=60.0)
    found.pull(HOUR + 9, **team, reason=LIMITED)
    found.pull(9, client="10.2.0.1", cached_bytes=5 * MB)
    yield found
    found.close()


def test_it_says_what_a_network_pulled_last_week_and_what_that_saved(operators: Operators) -> None:
    text = operators.text("?client=10.1.0.0/16")
    assert (
        "3 pulls from 10.1.0.0/16 in the last 7 days, 1 of them failed: 400 MB served, 300 MB of it from the"
        " cache (75 %); 2 limited pulls and 3 min of waiting saved."
    ) in text
    images = (
        "docker.io/library/nginx in the cache 1 0 300 MB 100 % 2 3 min ghcr.io/team/app 2 1 100 MB 0 % 0 0 s"
    )
    assert images in text
    assert "10.1.7.8 1 0 300 MB 100 % 2 3 min 10.1.0.9 2 1 100 MB 0 % 0 0 s" in text
    assert "10.2.0.1" not in text
    assert "ghcr.io/team/app:1.27 2026-09-21 09:15 alice @ 10.1.0.9 served 100 MB 0 % 1.0 s" in text


class _ManyRepositories:
    """A history of one pull of each of many repositories."""

    def pulls(self, filter: PullFilter, limit: int = 100, after: int = 0) -> Sequence[Pull]:
        return []

    def sums(self, by: SumKey, filter: PullFilter, limit: int = 1000) -> Sequence[PullSums]:
        return [PullSums(f"x.io/{each}", 1, 0, 0, 9, 0, 0, 1.0, 0.0) for each in range(10_050)][:limit]


def test_the_sentence_counts_all_repositories(tmp_path: Path) -> None:
    text = page_text(Endpoint(tmp_path, _ManyRepositories()).get("/history").body)
    assert "10,050 pulls in the last 7 days" in text
    assert "And 10,030 more images" in text


def test_the_pulls_of_a_digest_are_found(operators: Operators) -> None:
    """As after a recall, to see who has it."""
    digest = Digest.of(INDEX)
    text = operators.text(f"?image={digest}")
    assert f"1 pull of {digest} in the last 7 days: 300 MB served" in text
    assert "10.1.7.8" in text
    assert f"No pulls of ghcr.io/x@{digest}" in operators.text(f"?image=ghcr.io/x@{digest}")
    assert operators.get("?image=nginx@sha256:1").status == 400


def test_failed_pulls_come_first_with_their_reasons(operators: Operators) -> None:
    text = operators.text("?outcome=failed&time=day")
    assert "1 failed pull in the last 24 hours: nothing was served. The newest pulls" in text
    because = f"failed: too many requests: ghcr.io's limit or the mirror's own is reached ({LIMITED})"
    assert because in text
    assert text.index("The newest pulls") < text.index("Clients")


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("", "4 pulls in the last 7 days, 1 of them failed: 405 MB served"),
        ("?time=hour", "1 pull in the last hour: 5.0 MB served"),
        ("?time=day", "3 pulls in the last 24 hours, 1 of them failed: 105 MB served"),
        ("?time=month", "5 pulls in the last 30 days, 1 of them failed: 1.3 GB served"),
        ("?user=alice&outcome=served", "1 served pull by alice in the last 7 days: 100 MB served"),
        ("?image=nginx", "2 pulls of docker.io/library/nginx in the last 7 days: 305 MB served"),
        ("?image=ghcr.io/*&client=10.1.0.9", "2 pulls of ghcr.io/* from 10.1.0.9 in the last 7 days, 1 of"),
        ("?client=10.3.0.0/16", "No pulls from 10.3.0.0/16 in the last 7 days."),
        ("?outcome=running", "No running pulls in the last 7 days."),
    ],
)
def test_the_headline_sums_up_the_pulls_that_meet_the_form(
    operators: Operators, query: str, answer: str
) -> None:
    """Also those of an hour, of which the history has no sums by image and client."""
    assert answer in operators.text(query)


def test_the_answer_is_in_chinese_for_who_reads_that(operators: Operators) -> None:
    say = LANGUAGES["zh"]
    time, subject = say("history.time.week"), say("history.of.user", value="bob")
    assert say("history.none", time=time, subject=subject, kind="") in operators.text("?user=bob&lang=zh")
    text = operators.text("?outcome=failed&lang=zh")
    upstream = say("failure.limit", upstream="ghcr.io")
    assert say("pulls.failed", why=say("failure.because", plain=upstream, reason=LIMITED)) in text
    assert say("history.pulls.one", kind=say("history.kind.failed")) in text
    wrong = operators.get("?client=10.1&lang=zh")
    assert say("history.invalid.client") in page_text(wrong.body)


def test_names_narrow_the_question_and_keep_the_rest_of_it(operators: Operators) -> None:
    found = operators.links("?client=10.1.0.0/16&time=month&lang=en")
    rest = "client=10.1.0.0/16&image=docker.io/library/nginx"
    assert f"/history?{rest}&time=month&lang=en" in found
    assert f"/history?{rest}:1.27&time=month&lang=en" in found
    assert "/history?client=10.1.0.9&time=month&lang=en" in found
    assert "/history?client=10.1.0.0/16&user=alice&time=month&lang=en" in found
    assert "?client=10.1.0.0%2F16&time=month&lang=zh" in found
    assert "/history?client=10.1.0.9" not in operators.links("?client=10.1.0.9")
    patterns = operators.links("?image=*:1.27")
    assert "/history?image=docker.io/library/nginx:1.27" in patterns
    for each in found:
        if each.startswith("/history"):
            assert operators.endpoint.get(each).status == 200


def test_held_images_lead_to_their_pages(operators: Operators) -> None:
    """A repository to its own, and a pull to that of the manifest that it named; others do not."""
    found = [each for each in operators.links() if each.startswith("/images/")]
    assert set(found) == {f"/images/{NGINX}", f"/images/{NGINX}@{Digest.of(INDEX)}"}
    for each in found:
        assert operators.endpoint.get(each).status == 200


def test_a_pull_without_a_manifest_is_not_said_to_be_in_the_cache(operators: Operators) -> None:
    """A tag that does not exist is not held, whatever else the repository has."""
    operators.pull(5, reference="nope", reason="manifest unknown", client="10.4.0.1")
    text = operators.text("?client=10.4.0.1")
    assert "docker.io/library/nginx in the cache 1 1" in text
    assert " nginx:nope 2026" in text


def test_the_rest_of_the_names_leads_nowhere(operators: Operators) -> None:
    """Their pulls cannot be asked for by a name."""
    rest = [PullSums(OTHERS, 1, 0, MB, 0, 0, 0, 1.0, 0.0)]
    answer = HistoryAnswer(PullFilter(), rest, rest, (), 0, {})
    page = render_history(HistoryView(HistoryForm(), {}, answer), LANGUAGES["en"])
    body = Outcome(flattenString(None, page)).get().decode()
    assert body.count(f"{OTHERS}</th>") == 2
    assert "client=" not in body


def test_older_pulls_are_on_further_pages(operators: Operators) -> None:
    numbers = [operators.pull(3 * DAY + age, reference=f"v{age}", client="10.9.0.1") for age in range(80)]
    first = operators.get("?client=10.9.0.1")
    assert first.body.count(b"<time") == SHOWN_PULLS
    (older,) = [each for each in operators.links("?client=10.9.0.1") if "after=" in each]
    assert older == f"/history?client=10.9.0.1&after={numbers[SHOWN_PULLS - 1]}"
    second = operators.text(older.removeprefix("/history"))
    assert f"v{SHOWN_PULLS - 1} " not in second
    assert f"nginx:v{SHOWN_PULLS} " in second
    assert "nginx:v79 " in second
    assert "in the last 7 days" not in second.partition("Show")[2]
    assert "/history?client=10.9.0.1" in operators.links(older.removeprefix("/history"))
    assert "There are no older pulls." in operators.text(f"?client=10.9.0.1&after={numbers[-1]}")


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?client=10.1", "Client or network This is neither an address nor a network such as 10.1.0.0/16."),
        ("?image=NGINX", "Image or pattern This is no name of an image: NGINX: invalid repository name"),
        ("?image=a@sha256:1", "This is no name of an image: invalid digest: expected sha256"),
        (f"?user={'a' * 301}", "User This is no user name: it has more than 300 characters."),
        ("?outcome=lost", "Choose one of the outcomes."),
        ("?time=year", "Choose one of the times."),
        ("?after=x", "The address of this page is incomplete: it ends with the number of a pull."),
    ],
)
def test_bad_input_is_explained_beside_its_field(operators: Operators, query: str, sentence: str) -> None:
    """The fields keep what was typed, and nothing is answered."""
    answer = operators.get(f"{query}&user=bob" if "user" not in query else query)
    assert answer.status == 400
    text = page_text(answer.body)
    assert sentence in text
    assert "docker.io/library/nginx" not in text
    body = answer.body.decode()
    assert "user" in query or 'value="bob"' in body
    if query in ("?client=10.1", "?image=NGINX"):
        name, _, value = query.removeprefix("?").partition("=")
        (field,) = re.findall(f'<input [^>]*id="{name}"[^>]*>', body)
        assert f'value="{value}"' in field
        assert f'aria-describedby="{name}-wrong"' in field
        assert f'id="{name}-wrong"' in body


def test_hostile_names_are_text(operators: Operators) -> None:
    """Both what the history has and what the address says."""
    script = '"><script>alert(1)</script>{0}&amp;'
    operators.pull(5, client=script, user=script, registry="a.example", repository=script, reference=script,
                   reason=script, digest=script)  # fmt: skip
    for query in (
        "",
        "?user=%22%3E%3Cscript%3Ealert(1)%3C/script%3E{0}%26amp%3B",
        "?lang=%22%3E%3Cscript%3E",
    ):
        answer = operators.get(query)
        assert answer.status == 200
        assert b"<script>alert" not in answer.body
        assert b"<script></script>" in answer.body
    assert f"failed: {script}" in operators.text()
    assert operators.get("?client=%3Cscript%3Ealert(1)").body.count(b"<script>") == 1


def test_it_is_read_as_the_status_page_is(operators: Operators) -> None:
    """By addresses and the mirror's names, without a script, and not cached."""
    answer = operators.get("", "Accept-Language: zh")
    assert answer["Content-Type"] == "text/html; charset=utf-8"
    assert answer["Cache-Control"] == "no-store"
    assert answer["Vary"] == "Accept-Language"
    assert b'<html lang="zh">' in answer.body
    policy = str(answer["Content-Security-Policy"])
    assert "form-action 'self'" in policy
    assert "'unsafe" not in policy
    ask = operators.endpoint.ask
    assert ask("GET", "/history", host="mirror.example").status == 200
    assert ask("GET", "/history", host="rebound.example").error == (403, "DENIED")
    assert ask("HEAD", "/history").status == 200
    assert ask("POST", "/history").status == 405
    assert ask("GET", "/history/nginx").status == 404


def test_a_history_that_is_off_or_broken_says_so(operators: Operators, tmp_path: Path) -> None:
    directory = tmp_path / "other"
    directory.mkdir()
    off = Endpoint(directory)
    assert "There is no history: the setting history is off." in off.text("/history")
    operators.path.unlink()
    broken = operators.get("?user=bob")
    assert broken.status == 503
    assert f"the history {operators.path} cannot be read" in page_text(broken.body)
    assert b'value="bob"' in broken.body


def test_a_full_page_is_small(operators: Operators) -> None:
    for number in range(120):
        operators.pull(
            60.0 * number, registry="quay.io", repository=f"some-team/long-name-of-an-application-{number}",
            reference=f"2026.11.{number}", client=f"2001:db8:1:{number:x}::1", user="continuous-delivery",
            reason=f"the upstream quay cannot be reached: quay.io: no answer within 30 s, attempt {number}",
        )  # fmt: skip
    query = "?client=2001:db8::/32&image=quay.io/some-team/*&outcome=failed"
    assert "And 100 more images with fewer bytes." in operators.text(query)
    body = operators.get(query).body
    assert body.count(b"<time") == SHOWN_PULLS
    assert len(body) < 150_000


def test_a_page_of_long_names_has_fewer_pulls(operators: Operators) -> None:
    """The next pages have the rest."""
    names = {"reference": "v" * 128, "user": "u" * 64, "client": "10.9.0.1"}
    for age in range(110):
        repository = f"{'long/' * 48}{age:03}"
        operators.pull(DAY + age, "no " * 100, repository=repository, **names)
    pages = ["?client=10.9.0.1"]
    shown = 0
    while pages:
        query = pages.pop()
        answer = operators.get(query)
        assert len(answer.body) < 150_000
        assert 10 < answer.body.count(b"<time") < SHOWN_PULLS
        shown += answer.body.count(b"<time")
        links = [each for each in operators.links(query) if each.startswith("/history")]
        pages += [each.removeprefix("/history") for each in links if "after=" in each]
    assert shown == 110


def test_the_pages_of_images_lead_to_their_pulls(operators: Operators) -> None:
    def leads(path: str, link: str) -> bool:
        body = operators.endpoint.get(path).body.decode()
        return link in map(unescape, re.findall('href="([^"]*)"', body))

    assert leads("/images/", "/history")
    assert leads("/images/", f"/history?image={NGINX}&time=month")
    assert leads(f"/images/{NGINX}", f"/history?image={NGINX}&time=month")
    assert leads(f"/images/{NGINX}:1.27", f"/history?image={NGINX}:1.27&time=month")
