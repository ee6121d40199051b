"""The settings as one frozen value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal, Self, TypeGuard
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .field_types import (
    Addresses,
    BucketAddress,
    Contact,
    Directory,
    Email,
    Endpoints,
    File,
    Group,
    Host,
    HostPattern,
    HttpsUrl,
    Label,
    Names,
    Networks,
    NewFile,
    OperationsEndpoint,
    Origin,
    Origins,
    Prefix,
    Program,
    Proxies,
    RegistryName,
    RegistryNames,
    RepositoryPatterns,
    Rules,
    TagTtl,
    UpstreamUrls,
    Username,
    parse_off,
    suggest,
)
from .image_rules import (
    BudgetSettings,
    GateSettings,
    PolicySettings,
    RetentionSettings,
    SettingsTable,
    SyncSettings,
)
from .known_registries import ShortNaming
from .notation import (
    AUTOMATIC,
    Bytes,
    ConnectTimeout,
    Days,
    Seconds,
    Segments,
    Share,
    Size,
    Timeout,
    Window,
)


class ConfigurationError(ValueError):
    """Settings are invalid; each problem is a line that names the key and says what was expected."""

    def __init__(self, *problems: str) -> None:
        many = f"{len(problems)} settings are invalid:"
        super().__init__(problems[0] if len(problems) == 1 else "\n  ".join((many, *problems)))
        self.problems = problems


@contextmanager
def setting_errors(key: str) -> Iterator[None]:
    """Raise errors of the file that a setting names as errors of the setting.

    :raises ConfigurationError: for OSError and ValueError.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{key}: {error}") from None


def _identity(username: str | None, helper: str | None) -> str | None:
    """Return the identity of a login, or None when there is none."""
    return username or (helper and f"credential_helper:{helper}")


class AccountSettings(SettingsTable):
    """An account of the mirror for some repositories, ``[[upstreams.NAME.accounts]]``.

    The first account with a pattern that matches a repository holds for it.
    """

    name: Label
    repositories: RepositoryPatterns
    username: Username | None = None
    password_file: File | None = None
    credential_helper: Program | None = None

    @property
    def identity(self) -> str:
        """Identifies the account; another login of the same name is another account."""
        return f"{self.name}:{_identity(self.username, self.credential_helper)}"


class UpstreamSettings(SettingsTable):
    """The settings of one upstream registry, ``[upstreams.NAME]``."""

    urls: UpstreamUrls = Field(alias="url")
    replicas: bool = False
    registry: RegistryName = ""
    same_registry_as: Label | None = None
    realms: tuple[Origin, ...] = ()
    aliases: RegistryNames = ()
    short_names: ShortNaming = "off"
    allow_networks: Networks = ()
    public: bool | None = None
    offline: bool = False
    username: Username | None = None
    password_file: File | None = None
    credential_helper: Program | None = None
    accounts: tuple[AccountSettings, ...] = ()
    tag_ttl: TagTtl = Field(default_factory=dict)
    stale_while_revalidate: Seconds | None = None
    refresh_ahead: bool = True
    allow: Rules = ()
    deny: Rules = ()
    rewrite: dict[Prefix, Prefix] = Field(default_factory=dict)
    writes: bool = False
    ca_file: File | None = None
    proxy: str | None = Field(default=None, repr=False)
    addresses: dict[Host, Addresses] = Field(default_factory=dict)
    ip: Literal["4", "6", "4 6", "6 4"] = "6 4"
    connect_timeout: ConnectTimeout = 10.0
    timeout: Timeout = 60.0
    connections: Annotated[int, Field(ge=1, le=10_000)] = 64
    segments: Segments = AUTOMATIC
    prefetch: bool | None = None

    @property
    def url(self) -> str:
        """The first address, which identifies the registry; its path is a prefix of repositories."""
        return self.urls[0]

    @property
    def origin(self) -> str:
        """The first address without its path."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def prefix(self) -> str:
        """The path of the first address: the prefix of the repositories to mirror, or an empty string."""
        return urlsplit(self.url).path.removeprefix("/")

    @property
    def canonical(self) -> str:
        """The registry's name in images and in the store, where ``_`` replaces the colon before a port."""
        return self.registry or urlsplit(self.url).netloc.replace(":", "_")

    @property
    def account(self) -> str | None:
        """The identity of the account for repositories that no other one is for; None when there is none."""
        return _identity(self.username, self.credential_helper)

    @property
    def has_accounts(self) -> bool:
        """True if the mirror has an account of its own at the upstream, for some repositories or for all."""
        return self.account is not None or bool(self.accounts)

    def by_address(self) -> list[UpstreamSettings]:
        """Return these settings once for each address."""
        return [self.model_copy(update={"urls": (url,)}) for url in self.urls]


class AccessSettings(SettingsTable):
    """Users, limits and timeouts of clients, ``[access]``."""

    htpasswd: File | None = None
    keys: NewFile | None = None
    requests: Annotated[int, Field(ge=1)] | None = None
    bytes: Bytes | None = None
    window: Window = 60.0
    exempt: Networks = ()
    contact: Contact | None = None
    connections: Annotated[int, Field(ge=1)] | None = None
    connections_per_network: Share = 0.5
    audit: NewFile | None = None
    head_timeout: Timeout = 15.0
    body_timeout: Timeout = 30.0
    idle_timeout: Timeout = 90.0
    stall_timeout: Timeout = 600.0


class RedirectSettings(SettingsTable):
    """A bucket or a CDN near the clients of some networks, ``[[redirect]]``; the first that matches holds."""

    region: Label
    networks: Annotated[Networks, Field(min_length=1)]
    store: BucketAddress | None = None
    store_endpoint: Origin | None = None
    store_region: Label | None = None
    url: HttpsUrl | None = None

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        if (self.store is None) == (self.url is None):
            raise ValueError("expected either 'store', a bucket, or 'url', the address of a CDN")
        is_s3 = self.store is not None and self.store.startswith("s3://")
        if not is_s3 and (self.store_endpoint or self.store_region) is not None:
            raise ValueError("store_endpoint and store_region need a store that begins with s3://")
        return self


def _redirect_form(value: object) -> str:
    """Choose how ``redirect`` is validated; the tags do not appear in messages."""
    return "[tables]" if isinstance(value, list | tuple | dict) else "[switch]"


Redirect = Annotated[
    Annotated[bool, Tag("[switch]")] | Annotated[tuple[RedirectSettings, ...], Tag("[tables]")],
    Discriminator(_redirect_form),
]


class Settings(SettingsTable):
    """All settings; docs/reference/settings.md has a row for each."""

    domain: Host = "localhost"
    hosts: HostPattern = "{name}.{domain}"
    names: Names = ()
    listen: Endpoints = ()
    certificates: Directory | None = None
    acme: Email | None = None
    acme_directory: HttpsUrl = "https://acme-v02.api.letsencrypt.org/directory"
    acme_ca_file: File | None = None
    operations: OperationsEndpoint = "tcp:9464:interface=127.0.0.1"
    operations_names: Names = ()
    api_tokens_file: File | None = None
    networks: Networks = ("private",)
    access: AccessSettings = AccessSettings()
    budget: tuple[BudgetSettings, ...] = ()
    trust_proxy: Proxies = ()
    accel: Literal["off", "nginx"] = "off"
    workers: Annotated[int, Field(ge=1, le=64)] | None = None
    grace: Seconds = 300.0
    log_format: Literal["text", "json"] = "text"
    cache: Directory | None = None
    cache_group: Group | None = None
    cache_size: Size | None = None
    min_free: Size | None = None
    store: BucketAddress | None = None
    store_endpoint: Origin | None = None
    store_days: Days | None = None
    redirect: Redirect = False
    peers: Origins = ()
    tag_ttl: Seconds = 60.0
    stale_while_revalidate: Seconds = 0.0
    keep_deleted_upstream: bool = False
    offline: bool = False
    export: bool = False
    images: bool = False
    history: Annotated[Directory | None, BeforeValidator(parse_off)] = None
    history_days: Days = 30
    history_size: Bytes = 200_000_000
    history_addresses: Literal["full", "network", "region", "none"] = "full"
    upstreams: dict[Label, UpstreamSettings] = Field(default_factory=dict)
    policy: tuple[PolicySettings, ...] = ()
    gate: GateSettings = GateSettings()
    retention: tuple[RetentionSettings, ...] = ()
    sync: tuple[SyncSettings, ...] = ()
    default: Label | None = None

    def as_json(self) -> str:
        """Serialize the settings for ``model_validate_json``."""
        return self.model_dump_json(by_alias=True)

    @property
    def near_buckets(self) -> Sequence[RedirectSettings]:
        """The buckets and CDNs near clients, if ``redirect`` lists any."""
        return () if isinstance(self.redirect, bool) else self.redirect

    def host(self, name: str) -> str:
        """Return the virtual host of an upstream."""
        return self.hosts.format(name=name, domain=self.domain).lower()

    def is_shared(self, upstream: UpstreamSettings) -> bool:
        """Return True when all clients pull with the same rights, and their credentials are not relayed."""
        return upstream.has_accounts or self.access.htpasswd is not None

    def is_offline(self, upstream: UpstreamSettings) -> bool:
        """Return whether nothing is asked of an upstream."""
        return self.offline or upstream.offline

    @field_validator("sync")
    @classmethod
    def _sync_names_upstreams(
        cls, sync: tuple[SyncSettings, ...], info: ValidationInfo
    ) -> tuple[SyncSettings, ...]:
        upstreams = info.data.get("upstreams")
        for each in sync:
            if upstreams is not None and each.upstream not in upstreams:
                hint = suggest(each.upstream, upstreams)
                raise ValueError(f"expected upstreams of the settings, not {each.upstream!r}{hint}")
        return sync

    @field_validator("default")
    @classmethod
    def _default_is_an_upstream(cls, default: str | None, info: ValidationInfo) -> str | None:
        upstreams = info.data.get("upstreams")
        if default is not None and upstreams is not None and default not in upstreams:
            hint = suggest(default, upstreams)
            raise ValueError(f"expected the name of an upstream: {', '.join(upstreams)}{hint}")
        return default


def list_changes(before: object, after: object, path: Sequence[str] = ()) -> Iterator[str]:
    """Yield the keys of settings that differ, such as upstreams.quay.url; a list or new table is one key."""
    if before == after:
        return
    if isinstance(before, SettingsTable) and isinstance(after, SettingsTable):
        fields = type(before).model_fields.items()
        pairs = {field.alias or key: (getattr(before, key), getattr(after, key)) for key, field in fields}
    elif _are_tables(before) and _are_tables(after):
        pairs = {key: (before.get(key), after.get(key)) for key in before | after}
    else:
        yield ".".join(path)
        return
    for key, (old, new) in pairs.items():
        yield from list_changes(old, new, (*path, key))


def _are_tables(value: object) -> TypeGuard[dict[str, SettingsTable]]:
    return isinstance(value, dict) and all(isinstance(each, SettingsTable) for each in value.values())
