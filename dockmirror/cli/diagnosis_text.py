"""Diagnoses as text for people: what works, what does not, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .diagnostics import Diagnosis, DiagnosticStep

_ADVICE = {
    "name": (
        "Is the host name in 'upstreams.{name}.url' right, and does this machine's DNS know it?"
        " 'upstreams.{name}.addresses' gives it fixed addresses."
    ),
    "connection": (
        "Does a firewall forbid it, or is a proxy needed? 'upstreams.{name}.proxy' or HTTPS_PROXY names one."
        " An address in a private network has to be in 'upstreams.{name}.allow_networks'."
    ),
    "TLS": (
        "If the certificate is from an authority of your own, name it in 'upstreams.{name}.ca_file'. If it"
        " is not the registry's, a proxy or firewall intercepts the connection."
    ),
    "/v2/": "Is this address a registry? 'curl -i {url}/v2/' shows the answer.",
    "token": (
        "Are 'upstreams.{name}.username' and its password right? A token service on another host has to be in"
        " 'upstreams.{name}.realms'."
    ),
    "limit": (
        "Wait, or raise the limit with an account of the mirror's own: 'upstreams.{name}.username'. Cached"
        " images are still served."
    ),
    "image": (
        "Is the name right? A private image needs a login: that of the client at the upstream's virtual host,"
        " or an account of the mirror's own, 'upstreams.{name}.username'."
    ),
}
"""What to do when a step fails, by the name of the step."""


def advise(diagnosis: Diagnosis) -> str | None:
    """Return what to do about the step that failed; None if all succeeded."""
    failed = _failed_step(diagnosis)
    if failed is None:
        return None
    return _ADVICE[failed.name].format(name=diagnosis.upstream, url=diagnosis.url)


def describe(diagnoses: Sequence[Diagnosis]) -> Iterator[str]:
    """Yield the lines of all diagnoses, and of a summary if there are several."""
    for each in diagnoses:
        width = max(len(step.name) for step in each.steps)
        yield f"{each.upstream}: {each.url}"
        for step in each.steps:
            yield f"  {'✓' if step.ok else '✗'} {step.name.ljust(width)}  {step.result}"
        advice = advise(each)
        yield f"  What to do: {advice}" if advice else "  The mirror can pull from it."
        yield ""
    if len(diagnoses) > 1:
        yield _summarize(diagnoses)


def _summarize(diagnoses: Sequence[Diagnosis]) -> str:
    ill = [f"{each.upstream} ({failed.name})" for each in diagnoses if (failed := _failed_step(each))]
    if not ill:
        return f"All {len(diagnoses)} addresses work."
    return f"{len(diagnoses) - len(ill)} of {len(diagnoses)} addresses work. Not: {', '.join(ill)}."


def _failed_step(diagnosis: Diagnosis) -> DiagnosticStep | None:
    return next((step for step in diagnosis.steps if not step.ok), None)
