"""The pulls of recalled digests, from the history."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from ..admission.recalls import Recall
from ..config.settings import Settings
from ..history.database import FILE_NAME
from ..history.pulls import HistoryError, Pull, PullFilter
from ..history.reader import SqliteHistory
from ..oci.digest import Digest
from ..system.timestamps import format_timestamp
from .output import print_note

_MOST = 10_000


def find_pulls(settings: Settings, digests: Iterable[Digest]) -> Sequence[Pull] | None:
    """Return the pulls that began with one of these manifests, newest first.

    :returns: None if there is no history, or it cannot be read, which is said.
    """
    found: list[Pull] = []
    for digest in digests:
        pulls = _read(settings, PullFilter(digest=str(digest)))
        if pulls is None:
            return None
        found += pulls
    return sorted(found, key=lambda each: -each.number)


def find_refused_pulls(settings: Settings, recalls: Sequence[Recall]) -> Mapping[Digest, Sequence[Pull]]:
    """Return the pulls that each recall has refused, newest first; empty without a history."""
    since = min((each.since for each in recalls), default=None)
    failed = None if since is None else _read(settings, PullFilter(since=since, outcome="failed"))
    return {
        each.digest: [pull for pull in failed or () if str(each.digest) in pull.reason] for each in recalls
    }


def pull_fields(pull: Pull) -> dict[str, str]:
    """Return a pull as JSON has it, and as a row of a table."""
    separator = "@" if ":" in pull.reference else ":"
    return {
        "when": format_timestamp(pull.began),
        "client": pull.client,
        "user": pull.user,
        "image": f"{pull.registry}/{pull.repository}{separator}{pull.reference}",
        "platform": pull.platform,
        "outcome": pull.outcome,
    }


def _read(settings: Settings, filter: PullFilter) -> Sequence[Pull] | None:
    if settings.history is None:
        return None
    try:
        return SqliteHistory(settings.history / FILE_NAME, time.time).pulls(filter, _MOST)
    except HistoryError as error:
        print_note(str(error))
        return None
