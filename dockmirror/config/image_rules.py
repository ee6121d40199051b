"""The tables of rules about images: policies, budgets, retention and sync."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from .field_types import (
    CronText,
    ExceptionPattern,
    File,
    GateUrl,
    ImagePattern,
    Label,
    Platforms,
    RepositoryPatterns,
    SettingsFile,
    TagPatterns,
    VersionRangeText,
    check_file,
)
from .notation import (
    Bytes,
    GateTimeout,
    Seconds,
    Share,
    SyncPeriod,
    Window,
)


class SettingsTable(BaseModel):
    """A table of the settings, which never changes; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class PolicyException(SettingsTable):
    """Images that a policy's cool-down leaves out until a day is over, in UTC."""

    image: ExceptionPattern
    until: date
    reason: str = ""


class SignerIdentity(SettingsTable):
    """A keyless signer: the issuer of its certificate, and a pattern for its address or workflow."""

    issuer: Annotated[str, Field(min_length=1)]
    subject: Annotated[str, Field(min_length=1)]


def _parse_signer(value: object) -> object:
    """Return a keyless signer for a table, and the value itself for a path."""
    if isinstance(value, str | Path | SignerIdentity):
        return value
    try:
        return SignerIdentity.model_validate(value)
    except ValueError:
        raise ValueError("expected a file with a key, or a table with 'issuer' and 'subject'") from None


def _check_signer(
    signer: SettingsFile | SignerIdentity, info: ValidationInfo
) -> SettingsFile | SignerIdentity:
    return check_file(signer, info) if isinstance(signer, SettingsFile) else signer


Signer = Annotated[
    SettingsFile | SignerIdentity, BeforeValidator(_parse_signer), AfterValidator(_check_signer)
]
SignedBy = tuple[Signer, ...]
"""Files with public keys, and keyless signers; one of them is enough."""


class GateSettings(SettingsTable):
    """The policy server, and the root of trust of keyless signatures, ``[gate]``."""

    url: GateUrl | None = None
    secret_file: File | None = None
    ca_file: File | None = None
    timeout: GateTimeout = 2.0
    trust_root: File | None = None


class PolicySettings(SettingsTable):
    """The rules for some images, ``[[policy]]``.

    For each kind of rule the first policy that matches and sets it holds; None leaves it to the next one.
    """

    images: ImagePattern
    mode: Literal["enforce", "warn", "off"] = "enforce"
    min_age: Seconds | None = None
    first_pull: Literal["serve", "refuse", "registry"] = "serve"
    digests: Literal["any", "known"] = "any"
    exceptions: tuple[PolicyException, ...] = ()
    lock: File | None = None
    unlisted: Literal["serve", "refuse"] = "refuse"
    signed_by: SignedBy | None = None
    hook: bool | None = None
    on_error: Literal["refuse", "serve"] = "refuse"
    platforms: Platforms | None = None
    max_size: Bytes | None = None
    media_types: tuple[str, ...] | None = None
    foreign_layers: bool | None = None


class BudgetSettings(SettingsTable):
    """The use of some images by each client network, ``[[budget]]``; all budgets that match apply."""

    images: ImagePattern
    each: Literal["image", "network"] = "image"
    requests: Annotated[int, Field(ge=1)] | None = None
    pulls: Annotated[int, Field(ge=1)] | None = None
    bytes: Bytes | None = None
    window: Window = 60.0


class RetentionSettings(SettingsTable):
    """The rules for how long some images are kept, ``[[retention]]``; the first that matches holds."""

    images: ImagePattern
    unused: Seconds | None = None
    tags: Annotated[int, Field(ge=1)] | None = None
    quota: Bytes | None = None
    repository_quota: Bytes | None = None


class SyncSettings(SettingsTable):
    """The images of an upstream that are pulled on a schedule, and pinned, ``[[sync]]``."""

    upstream: Label
    repositories: RepositoryPatterns
    tags: TagPatterns = ()
    semver: VersionRangeText | None = None
    newest: Annotated[int, Field(ge=1)] | None = None
    platforms: Platforms = ()
    referrers: bool = True
    every: SyncPeriod | None = None
    schedule: CronText | None = None
    jitter: Share = 0.1

    @field_validator("schedule")
    @classmethod
    def _schedule_excludes_every(cls, schedule: str | None, info: ValidationInfo) -> str | None:
        if schedule is not None and info.data.get("every") is not None:
            raise ValueError("expected 'every' or 'schedule', not both")
        return schedule
