"""The values of a decision: its subject, its outcome, and a fact that could not be gathered."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from ..oci.digest import Digest
from ..oci.request import Reference, Repository


@frozen
class Subject:
    """A manifest that a client requests.

    :ivar upstream: the upstream's name in the settings.
    :ivar digest: of the manifest that would be served; None if the upstream names none.
    """

    upstream: str
    repository: Repository
    reference: Reference
    digest: Digest | None = None

    def __str__(self) -> str:
        return f"{self.repository}{'@' if isinstance(self.reference, Digest) else ':'}{self.reference}"


@frozen
class Serve:
    """The manifest is served."""


@frozen
class ServeInstead:
    """Another manifest of the repository is served in its place, if that one is admitted itself.

    :ivar why: the reason, as one sentence.
    :ivar rule: the kind of rule, for metrics.
    """

    digest: Digest
    why: str
    rule: str = ""


@frozen
class Refuse:
    """Nothing is served.

    :ivar why: one sentence for the client: the rule, the reason, and what to do.
    :ivar rule: the kind of rule, for metrics.
    """

    why: str
    rule: str = ""


Verdict = Serve | ServeInstead | Refuse
SERVE = Serve()


@frozen
class MissingFact:
    """A fact that could not be gathered, so the rule cannot be checked.

    :ivar why: says so to the operator, with the reason, as part of a sentence.
    :ivar client_why: says so to clients, who are not told about the mirror's own machine.
    """

    why: str
    client_why: str

    @classmethod
    def of(cls, setting: str, reason: str, client_reason: str | None = None) -> MissingFact:
        """:param setting: the key of the rule in a policy."""
        problem = f"the rule {setting} cannot be checked: "
        return cls(problem + reason, problem + (reason if client_reason is None else client_reason))


@frozen
class HookVerdict:
    """The verdict of the operator's policy server.

    :ivar reason: its words for the client, in one line.
    """

    allow: bool
    reason: str = ""


@frozen
class SignatureVerdict:
    """The trusted signer of an image, or the reason for which there is none."""

    signer: str = ""
    problem: str = ""


@frozen
class ImageVerdict:
    """The outcome of the limits for one manifest: no problem, or the first one, as the end of a sentence."""

    problem: str = ""


@frozen
class Unlisted:
    """The fact that a lock file does not list a tag, and that the policy refuses such tags."""

    file: Path
