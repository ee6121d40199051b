"""``dockmirror check``: diagnose whether the mirror can pull from its upstreams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
from attrs import asdict

from ..app.naming import ImageName, registry_names
from ..config.field_types import suggest
from ..config.settings import Settings
from .arguments import json_option
from .command_context import Context, parse_image, print_json, run_with_reactor

if TYPE_CHECKING:
    from .diagnostics import Diagnosis, DiagnosticStep


@click.command("check", short_help="Check whether the mirror can pull from its upstreams.")
@json_option
@click.argument("names", nargs=-1)
@click.pass_obj
def check(context: Context, as_json: bool, names: tuple[str, ...]) -> None:
    """Check the upstreams that NAMES mean, by default all, with the mirror's own requests.

    A name is that of an upstream (docker), of a registry (docker.io, quay.io), or of an image (nginx:1.27,
    ghcr.io/o/r), which is then looked for too.

    Each address of an upstream is checked step by step: name resolution, connection, TLS certificate,
    authentication, and token, with what to do about the step that fails.  For Docker Hub the remaining pulls
    are shown; the check itself uses none of them.

    An upstream that is offline is not asked.  Without NAMES, the mirrors in 'peers' are checked, too.

    Exit status: 0 when all of them work, 1 otherwise.
    """
    from .diagnostics import diagnose_all

    settings = context.settings
    images = find_upstreams(names, settings) if names else {name: [] for name in settings.upstreams}
    peers = () if names else settings.peers
    diagnoses = run_with_reactor(partial(diagnose_all, settings, context.environ, images, peers))
    if as_json:
        print_json([{**asdict(each), "ok": each.ok, "advice": advise(each)} for each in diagnoses])
    else:
        click.echo("\n".join(describe(diagnoses)).rstrip())
    raise SystemExit(0 if all(each.ok for each in diagnoses) else 1)


def find_upstreams(names: Sequence[str], settings: Settings) -> Mapping[str, Sequence[ImageName]]:
    """Return the upstreams that names mean, each with the images among the names that it has.

    :raises click.UsageError: when a name means none.
    """
    found: dict[str, list[ImageName]] = {}
    for name in names:
        upstream = _find_upstream(name, settings)
        if upstream is not None:
            found.setdefault(upstream, [])
            continue
        if not set("/:@") & set(name):
            raise click.UsageError(f"there is no upstream {name}{_list_upstreams(settings, name)}")
        image = parse_image(name, settings)
        registry = image.repository.first
        upstream = _find_upstream(registry, settings)
        if upstream is None:
            raise click.UsageError(
                f"there is no upstream for {registry}{_list_upstreams(settings, registry)}"
            )
        found.setdefault(upstream, []).append(image)
    return found


def _list_upstreams(settings: Settings, name: str) -> str:
    registries = [each for upstream in settings.upstreams.values() for each in registry_names(upstream)]
    hint = suggest(name, [*settings.upstreams, *registries])
    return f", only {', '.join(settings.upstreams)}{hint}"


def _find_upstream(name: str, settings: Settings) -> str | None:
    """Return the upstream that a name, a registry, an address or a virtual host means, or None."""
    if name in settings.upstreams:
        return name
    parts = urlsplit(name if "://" in name else f"//{name}")
    if parts.path.strip("/"):
        return None
    host = parts.netloc.lower()
    for key, upstream in settings.upstreams.items():
        addresses = [urlsplit(url).netloc for url in upstream.urls]
        if host in (*registry_names(upstream), *addresses, settings.host(key)):
            return key
    return None


_ADVICE = {
    "name": (
        "Is the host name in 'upstreams.{name}.url' right, and does this machine's DNS know it?"
        " 'upstreams.{name}.addresses' gives it fixed addresses."
    ),
    "connection": (
        "Does a firewall forbid it, or is a proxy needed? 'upstreams.{name}.proxy' or HTTPS_PROXY names one."
    ),
    "connection refused": (
        "Does the registry run, and is the port right in 'upstreams.{name}.url' ({url})? Or does a firewall"
        " refuse the connection, or is a proxy needed? 'upstreams.{name}.proxy' or HTTPS_PROXY names one."
    ),
    "connection not allowed": (
        "Is that the registry's address? The private network that it is in has to be in"
        " 'upstreams.{name}.allow_networks'."
    ),
    "TLS": (
        "If the certificate is from an authority of your own, name it in 'upstreams.{name}.ca_file'. If it"
        " is not the registry's, a proxy or firewall intercepts the connection."
    ),
    "TLS not spoken": (
        "Is {plain_url} meant? The server at this port uses no TLS; if it is the registry, write http:// in"
        " 'upstreams.{name}.url'. Otherwise a proxy or firewall intercepts the connection."
    ),
    "/v2/": "Is this address a registry? 'curl -i {url}/v2/' shows the answer.",
    "token": (
        "Are the username and the password of the mirror's account right, in 'upstreams.{name}'? A token"
        " service on another host has to be in 'upstreams.{name}.realms'."
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
"""Advice for each step that may fail, by the step's name and the kind of the failure."""
_PEER_ADVICE = (
    "Does the mirror run at {url}, does it have this machine in its 'networks', and is this its address in"
    " 'peers'? Until then its blobs come from the registries."
)


def advise(diagnosis: Diagnosis) -> str | None:
    """Return what to do about the step that failed; None if all succeeded."""
    failed = _failed_step(diagnosis)
    if failed is None:
        return None
    origin = urlsplit(diagnosis.url)._replace(path="").geturl()
    if diagnosis.is_peer:
        return _PEER_ADVICE.format(url=origin)
    plain = urlsplit(origin)._replace(scheme="http").geturl()
    advice = _ADVICE[f"{failed.name} {failed.kind}".rstrip()]
    return advice.format(name=diagnosis.upstream, url=origin, plain_url=plain)


def describe(diagnoses: Sequence[Diagnosis]) -> Iterator[str]:
    """Yield the lines of all diagnoses, and of a summary if there are several."""
    for each in diagnoses:
        width = max(len(step.name) for step in each.steps)
        yield f"{each.upstream}: {each.url}"
        for step in each.steps:
            yield f"  {'✓' if step.ok else '✗'} {step.name.ljust(width)}  {step.result}"
        yield _conclude(each)
        yield ""
    if len(diagnoses) > 1:
        yield _summarize(diagnoses)


def _conclude(diagnosis: Diagnosis) -> str:
    if diagnosis.offline:
        return "  The mirror serves what its cache holds."
    advice = advise(diagnosis)
    can = "fetch blobs" if diagnosis.is_peer else "pull"
    return f"  What to do: {advice}" if advice else f"  The mirror can {can} from it."


def _summarize(diagnoses: Sequence[Diagnosis]) -> str:
    asked = [each for each in diagnoses if not each.offline]
    offline = len(diagnoses) - len(asked)
    suffix = f" Offline: {offline}." if offline else ""
    return f"{_summarize_asked(asked)}{suffix}" if asked else "The mirror is offline: no registry is asked."


def _summarize_asked(diagnoses: Sequence[Diagnosis]) -> str:
    ill = [f"{each.upstream} ({failed.name})" for each in diagnoses if (failed := _failed_step(each))]
    if not ill:
        return f"All {len(diagnoses)} addresses work."
    return f"{len(diagnoses) - len(ill)} of {len(diagnoses)} addresses work. Not: {', '.join(ill)}."


def _failed_step(diagnosis: Diagnosis) -> DiagnosticStep | None:
    return next((step for step in diagnosis.steps if not step.ok), None)
