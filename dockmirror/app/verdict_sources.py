"""The sources of verdicts on images: their signatures, the policy server, and limits on the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime

from ..admission.fact_source import IFactSource
from ..admission.hook import HookCache, HookSource, PolicyServer
from ..admission.image_limits import LIMIT_KEYS, ImageLimitSource
from ..admission.keyless import KeylessVerifier, is_sigstore_installed
from ..admission.known_digests import KnownParents
from ..admission.signature_source import SignatureChecker, SignatureSource
from ..admission.signatures import Identity, PublicKey, Signers
from ..concurrency.caching import TTLCache
from ..config.image_rules import SignedBy, SignerIdentity
from ..config.settings import ConfigurationError, Settings, UpstreamSettings, setting_errors
from ..interfaces import IDocumentStore
from ..store.threads import RunInThread
from ..upstream.agents import make_http_client
from .upstream_stack import AgentFor, upstream_errors

_MOST = 10_000


def make_verdict_sources(
    registry: str,
    settings: Settings,
    documents: IDocumentStore,
    in_thread: RunInThread,
    clock: IReactorTime,
    agent_for: AgentFor,
) -> Sequence[IFactSource]:
    """Return the sources of the rules that policies set.

    :param registry: the registry's name in images.
    :raises ConfigurationError: when a key, the secret or the optional library is missing.
    """
    gate = settings.gate
    parents = KnownParents(registry, documents, TTLCache(clock, _MOST), TTLCache(clock, _MOST))
    sources: list[IFactSource] = []
    if any(policy.signed_by for policy in settings.policy):
        keyless = KeylessVerifier(gate.trust_root, clock.seconds, settings.offline)
        checker = SignatureChecker(load_signers(settings), documents, parents, keyless.verify, in_thread)
        sources.append(SignatureSource(checker))
    sources += [
        ImageLimitSource(key, parents)
        for key in LIMIT_KEYS
        if any(getattr(policy, key) is not None for policy in settings.policy)
    ]
    if server := make_policy_server(settings, clock, agent_for):
        sources.append(HookSource(HookCache(registry, server, parents, documents, clock)))
    return sources


def load_signers(settings: Settings) -> dict[SignedBy, Signers]:
    """Return the signers of each policy.

    :raises ConfigurationError: when a key is invalid, or the library for keyless signers is missing.
    """
    found = {
        policy.signed_by: _load_signers(f"policy.{number}.signed_by", policy.signed_by)
        for number, policy in enumerate(settings.policy)
        if policy.signed_by
    }
    if any(signers.identities for signers in found.values()) and not is_sigstore_installed():
        raise ConfigurationError(
            "policy: keyless signers need the extra 'signatures': pip install 'dockmirror[signatures]'"
        )
    return found


def _load_signers(key: str, signed_by: SignedBy) -> Signers:
    with setting_errors(key):
        keys = [_load_key(each) for each in signed_by if isinstance(each, Path)]
    return Signers(
        keys,
        [Identity(each.issuer, each.subject) for each in signed_by if isinstance(each, SignerIdentity)],
    )


def _load_key(path: Path) -> PublicKey:
    try:
        return PublicKey.parse(path.name, path.read_bytes())
    except ValueError:
        raise ValueError(f"expected a public key of RSA, ECDSA or Ed25519 in PEM in {path}") from None


def make_policy_server(settings: Settings, clock: IReactorTime, agent_for: AgentFor) -> PolicyServer | None:
    """Return the policy server, or None if no policy asks it.

    :raises ConfigurationError: when its address or its secret is missing, or its CA bundle is invalid.
    """
    gate = settings.gate
    if not any(policy.hook for policy in settings.policy):
        return None
    if gate.url is None:
        raise ConfigurationError("gate.url: is missing: a policy has 'hook = true'")
    parts = urlsplit(gate.url)
    server = UpstreamSettings(url=(f"{parts.scheme}://{parts.netloc}",), ca_file=gate.ca_file)
    secret = ""
    if gate.secret_file is not None:
        with setting_errors("gate.secret_file"):
            secret = gate.secret_file.read_text("ascii").strip()
        if not secret or not secret.isprintable():
            raise ConfigurationError(f"gate.secret_file: expected a line of text in {gate.secret_file}")
    with upstream_errors("gate", server):
        http = make_http_client(agent_for(server, lambda host, address: None))
    return PolicyServer(gate.url, secret, http, clock, gate.timeout)
