"""The report that an upstream refuses an account of the mirror's own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from dockmirror.app.accounts import describe_account
from dockmirror.config.load import load
from dockmirror.metrics import Metrics
from dockmirror.middleware.observers import AccountObserver
from dockmirror.oci.request import Repository
from dockmirror.oci.token import pull_scope
from dockmirror.status import AddressHealth
from tests.stacks import logged

SCOPE = pull_scope(Repository("team/app"))
REFUSED = (
    "the upstream inner refused the mirror's account bob (the setting 'upstreams.inner.username') for"
    " repository:team/app:pull"
)


def test_a_refusal_is_the_last_failure_and_is_logged_and_counted() -> None:
    """Further refusals are not logged."""
    registry, health = CollectorRegistry(), AddressHealth("https://inner.example", Clock())
    account = "the mirror's account bob (the setting 'upstreams.inner.username')"
    report = AccountObserver("inner", account, Metrics(registry), health)
    labels = {"upstream": "inner", "reason": "account"}
    assert registry.get_sample_value("dockmirror_upstream_failures_total", labels) == 0
    with logged() as lines:
        report(SCOPE, True)
        report(SCOPE, False)
    assert len(lines) == 1
    assert f"{REFUSED}; is its password right?" in lines[0]
    assert health.address.failure == REFUSED
    assert registry.get_sample_value("dockmirror_upstream_failures_total", labels) == 2


def test_an_account_is_described_by_its_user_and_its_setting() -> None:
    accounts = [{"name": "team", "repositories": ["team/*"], "credential_helper": "pass"}]
    table = {"url": "https://inner.example", "username": "bob", "accounts": accounts}
    upstream = load({"networks": ["private"], "upstreams": {"inner": table}}, {}).upstreams["inner"]
    bob = "the mirror's account bob (the setting 'upstreams.inner.username')"
    assert describe_account("inner", "", upstream) == bob
    team = "the mirror's account team (the setting 'upstreams.inner.accounts.0.credential_helper')"
    assert describe_account("inner", "team", upstream) == team
