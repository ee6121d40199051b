"""``dockmirror history`` and ``report``, on a history that the test has written."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from click.testing import Result

from dockmirror.cli.history_commands import format_lines, newly_ended
from dockmirror.history.history_writer import HistoryBounds, HistoryWriter
from dockmirror.history.pulls import Outcome, Pull
from dockmirror.history.tracker import PartState, make_number

from ..history.kept import report
from .shop import run

HOUR, DAY = 3600.0, 86_400.0


class Written:
    """A history in the state directory of a command."""

    def __init__(self, state: Path) -> None:
        self.path = state / "history" / "pulls.db"
        self.path.parent.mkdir(parents=True)
        self.environ = {"STATE_DIRECTORY": str(state), "CACHE_DIRECTORY": str(state / "cache")}
        self._writer = HistoryWriter(self.path, HistoryBounds())

    def pull(self, age: float, **fields: Any) -> None:
        now = time.time()
        number, state = make_number(now - age, 1, 1), PartState(now - age, reason=fields.pop("reason", ""))
        self._writer.write([report(number, state=state, last=now - age + 1, **fields)], now)
        self._writer.close()

    def run(self, *arguments: str, code: int = 0) -> Result:
        return run(*arguments, code=code, environ=self.environ)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    history = Written(tmp_path)
    history.pull(3 * DAY, reference="1.26", cached_bytes=5_000_000, saved_pulls=1)
    history.pull(2 * HOUR, repository="team/app", registry="ghcr.io", client="10.1.0.9", user="alice",
                 upstream_bytes=2_000_000, upstream_seconds=4.0)  # fmt: skip
    history.pull(HOUR, reason="the registry does not answer", digest="sha256:aa")
    return history


@pytest.mark.parametrize(
    ("arguments", "pulls"),
    [
        (["--client", "10.1.0.0/16"], 1),
        (["--user", "alice"], 1),
        (["nginx"], 2),
        (["nginx:1.26", "--last", "60d"], 1),
        (["ghcr.io/*", "--client", "10.0.0.1"], 0),
    ],
)
def test_a_report_of_an_image_or_a_client(written: Written, arguments: list[str], pulls: int) -> None:
    """It counts the pulls that are kept, and says how long that is."""
    printed = written.run("report", *arguments, "--json")
    report = json.loads(printed.stdout)
    assert report["total"]["pulls"] == sum(each["pulls"] for each in report["client"]) == pulls
    assert ("pulls are kept for 30 days" in printed.stderr) == ("60d" in arguments)


def test_the_fleet_needs_a_bucket(written: Written) -> None:
    assert "--fleet has sums only" in written.run("report", "--fleet", "nginx", code=2).stderr
    assert "there is no 'store'" in written.run("report", "--fleet", code=2).stderr
    assert "--by mirror needs --fleet" in written.run("report", "--by", "mirror", code=2).stderr


def test_pulls_are_listed_oldest_first(written: Written) -> None:
    lines = written.run("history").stdout.splitlines()
    assert lines[0].split() == ["time", "client", "image", "size", "layers", "cached", "seconds", "outcome"]
    assert [line.split()[2] for line in lines[1:]] == [
        "docker.io/library/nginx:1.26",
        "ghcr.io/team/app:1.27",
        "docker.io/library/nginx:1.27",
    ]
    assert "alice@10.1.0.9" in lines[2]
    assert lines[3].endswith("failed: the registry does not answer")


@pytest.mark.parametrize(
    ("arguments", "tags"),
    [
        (["nginx"], ["1.26", "1.27"]),
        (["nginx:1.26"], ["1.26"]),
        (["docker.io/*"], ["1.26", "1.27"]),
        (["--client", "10.1.0.0/16"], ["1.27"]),
        (["--user", "alice"], ["1.27"]),
        (["--digest", "sha256:aa"], ["1.27"]),
        (["--since", "1d"], ["1.27", "1.27"]),
        (["--until", "1d"], ["1.26"]),
        (["--since", "2020-01-01", "--limit", "1"], ["1.27"]),
        (["--outcome", "failed"], ["1.27"]),
        (["--until", "99999999d"], []),
        (["redis"], []),
    ],
)
def test_an_image_is_found_by_its_short_name(written: Written, arguments: list[str], tags: list[str]) -> None:
    """And by all other conditions."""
    found = json.loads(written.run("history", "--json", *arguments).stdout)
    assert [each["reference"] for each in found] == tags


@pytest.mark.parametrize("offset", [0, 5])
def test_a_time_is_in_utc_unless_it_has_an_offset(
    written: Written, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    """Wherever the machine is: all times that are shown are in UTC."""
    shown = datetime.fromtimestamp(time.time() - 1.5 * HOUR, timezone(timedelta(hours=offset)))
    text = shown.isoformat() if offset else shown.replace(tzinfo=None).isoformat()
    with monkeypatch.context() as machine:
        machine.setenv("TZ", "America/New_York")
        time.tzset()
        found = json.loads(written.run("history", "--json", "--since", text).stdout)
    time.tzset()
    assert [each["outcome"] for each in found] == ["failed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["history", "--since", "yesterday"], "expected an age such as 2h or 7d"),
        (["history", "a@sha256:0"], "--digest finds digests"),
        (["history", "A"], "A"),
        (["report", "--last", "1h"], "expected a number of days"),
    ],
)
def test_what_cannot_be_meant_is_said(written: Written, arguments: list[str], message: str) -> None:
    assert message in written.run(*arguments, code=2).stderr


@pytest.mark.parametrize("command", ["history", "report"])
def test_a_client_is_an_address_a_network_or_a_region(written: Written, command: str) -> None:
    """The name of a region is one only if the history keeps regions."""
    refused = written.run(command, "--client", "office", code=1).stderr
    assert "office is neither an address nor a network" in refused
    written.environ["DOCKMIRROR_HISTORY_ADDRESSES"] = "region"
    written.run(command, "--client", "office")


def test_without_a_history_the_commands_say_why(tmp_path: Path, written: Written) -> None:
    assert "no such pull" in written.run("history", "redis").stderr
    assert "neither an address nor a network" in written.run("history", "--client", "a/b", code=1).stderr
    written.path.unlink()
    assert "there is no history in" in written.run("history", code=1).stderr
    written.environ["DOCKMIRROR_HISTORY"] = "false"
    assert "the mirror keeps no history" in written.run("report", code=1).stderr


def test_followed_pulls_are_shown_when_they_have_ended() -> None:
    """Once, and again when their outcome changes; those that ended before are not."""
    pull = Pull(
        1, 100.0, 1.0, "", "", "", "docker.io", "library/nginx", "1", "", "", 0, 0, 0, 0, 0, 0, "running", ""
    )  # fmt: skip
    outcomes: dict[int, Outcome] = {}
    shown = [
        [each.outcome for each in newly_ended([evolve(pull, outcome=outcome)], outcomes, 90.0)]
        for outcome in ("running", "failed", "failed", "served")
    ]
    assert shown == [[], ["failed"], [], ["served"]]
    assert newly_ended([evolve(pull, number=2, outcome="served")], outcomes, 102.0) == []


def test_followed_pulls_have_the_names_of_their_columns() -> None:
    """An empty cell moves no other one."""
    pull = Pull(
        1, 0.0, 1.0, "", "", "", "docker.io", "library/nginx", "1", "", "", 2, 1, 9, 0, 0, 0, "served", ""
    )  # fmt: skip
    assert list(format_lines([pull])) == [
        "time  client  image  size  layers  cached  seconds  outcome",
        "1970-01-01T00:00:00.000+00:00  -  docker.io/library/nginx:1  9 B  2  1  1.0  served",
    ]


def test_a_report_has_a_table_for_each_key(written: Written) -> None:
    text = written.run("report", "--last", "30d").stdout
    assert "3 pulls, 1 failed; 7.0 MB served, 2.0 MB fetched, 5.0 MB saved; 1 limited pulls" in text
    assert "about 10 s of waiting saved" in text
    assert [line.split()[0] for line in text.splitlines() if line and line[0] in "rdcg1"] == [
        *("registry", "docker.io", "ghcr.io"),
        *("repository", "docker.io/library/nginx", "ghcr.io/team/app"),
        *("client", "10.0.0.1", "10.1.0.9"),
    ]


def test_a_report_of_more_days_than_there_were(written: Written) -> None:
    """It has everything."""
    said = written.run("report", "--last", "99999999d").stdout
    assert said.startswith("Since 1970-01-01 (UTC): 3 pulls")


def test_a_report_for_programs(written: Written) -> None:
    """JSON and CSV have the same figures."""
    found = json.loads(written.run("report", "--json", "--by", "registry").stdout)
    assert found["total"]["served_bytes"] == 7_000_000
    assert set(found) == {"since", "total", "registry"}
    rows = list(csv.DictReader(written.run("report", "--csv", "--by", "registry").stdout.splitlines()))
    assert [(each["by"], each["key"], int(each["saved_bytes"])) for each in rows] == [
        ("registry", "docker.io", 5_000_000),
        ("registry", "ghcr.io", 0),
    ]
    recent = json.loads(written.run("report", "--last", "2", "--json", "--by", "day").stdout)
    assert recent["total"]["saved_bytes"] == 0
    assert sum(each["pulls"] for each in recent["day"]) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("command", ["history", "report"])
def test_root_reads_the_history_of_another_user_and_leaves_it_no_file(written: Written, command: str) -> None:
    """The owner may not enter the directory above, as with systemd's dynamic users."""
    for path in (written.path.parent, written.path):
        shutil.chown(path, 65534, 65534)
    written.path.parents[1].chmod(0o700)
    written.run(command)
    assert {path.stat().st_uid for path in written.path.parent.iterdir()} == {65534}
    assert os.geteuid() == 0
