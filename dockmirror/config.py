"""The operator's choices: file, environment and command line made into one frozen value."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from attrs import frozen
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from .known import KNOWN, Known, ShortNaming
from .networks import networks
from .oci.errors import NameInvalid
from .oci.reference import Repository

PREFIX = "DOCKMIRROR_"
PASSWORD_PREFIX = f"{PREFIX}PASSWORD_"
"""Of variables that hold passwords; these are no settings, so that no setting holds a password."""
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_RULE = re.compile(r"[a-z0-9._/*?-]+(:[A-Za-z0-9._*?-]+|@[a-z0-9+._:*?-]+)?")
_AMOUNT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,3})?)\s*(%|(?:[KMGT]i?)?B?)", re.IGNORECASE)
_UNITS = {"": 1} | {
    letter + kind: base**power
    for power, letter in enumerate("KMGT", 1)
    for kind, base in (("", 1000), ("I", 1024))
}


@frozen
class Amount:
    """A number of bytes, or a share of what a file system has."""

    bytes: int = 0
    share: float = 0.0

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.share > 0

    def of(self, total: int) -> int:
        """In bytes, on a file system of so many."""
        return self.bytes + int(self.share * total)


class ConfigurationError(ValueError):
    """A setting that cannot be: one line that names the key and says what was expected."""


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("expected a host name, without scheme, port and path")
    return text.lower().rstrip(".")


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.port == 0
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
    ):
        raise ValueError("expected an address such as https://registry.example.com, without a path")
    if parts.username is not None:
        raise ValueError("expected an address without a name and a password in it")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _pattern(text: str) -> str:
    if "{name}" not in text or not _HOST.fullmatch(text.replace("{name}", "a").replace("{domain}", "b")):
        raise ValueError('expected a host name with {name} in it, such as "{name}.{domain}"')
    return text


def _network(text: str) -> str:
    try:
        list(networks([text]))
        return text
    except ValueError:
        raise ValueError('expected a network such as 192.168.0.0/16, or "private", or "public"') from None


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("expected an address such as 192.0.2.1") from None


def _username(text: str) -> str:
    if not text or ":" in text or not text.isprintable():
        raise ValueError("expected a name without a colon in it")
    return text


def _rule(text: str) -> str:
    if not _RULE.fullmatch(text):
        raise ValueError('expected a pattern such as "library/*", "library/nginx:1.*" or "team/**@sha256:*"')
    return text


def _repository(text: str) -> str:
    try:
        return str(Repository.parse(text))
    except NameInvalid as error:
        raise ValueError(
            f"expected the beginning of a repository's name, in whole components: {error}"
        ) from None


def _proxy(text: str) -> str:
    return text if text == "unix" else _network(text)


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError("expected a name that can be part of a host's: lower-case letters, digits and '-'")
    return text


def _endpoint(text: str) -> str:
    if not re.match(r"[a-z][a-z0-9]*:", text):
        raise ValueError('expected a server endpoint such as "tcp:8080" or "unix:/run/dockmirror.sock"')
    return text


def _operations(text: str) -> str:
    """On a command line an empty text means that nothing was said, so there is a word for it as well."""
    return "" if text in ("", "none") else _endpoint(text)


def _amount(value: object) -> Amount:
    match = _AMOUNT.fullmatch(str(value).strip())
    if isinstance(value, bool) or not match:
        raise ValueError('expected a number of bytes, such as 500MB or 100GiB, or a share, such as "20%"')
    number, unit = float(match[1]), match[2].upper()
    if unit == "%":
        return Amount(share=number / 100)
    return Amount(bytes=int(number * _UNITS[unit.removesuffix("B")]))


def _listed(value: Any) -> Any:
    """One text, as the environment gives it, is a list of words."""
    return value.split() if isinstance(value, str) else value


Host = Annotated[str, AfterValidator(_host)]
Label = Annotated[str, AfterValidator(_label)]
Origin = Annotated[str, AfterValidator(_origin)]
NetworkName = Annotated[str, AfterValidator(_network)]
Networks = Annotated[tuple[NetworkName, ...], BeforeValidator(_listed)]
Proxies = Annotated[tuple[Annotated[str, AfterValidator(_proxy)], ...], BeforeValidator(_listed)]
Endpoints = Annotated[tuple[Annotated[str, AfterValidator(_endpoint)], ...], BeforeValidator(_listed)]
Size = Annotated[Amount, PlainValidator(_amount)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Addresses = Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], BeforeValidator(_listed)]
Rules = Annotated[tuple[Annotated[str, AfterValidator(_rule)], ...], BeforeValidator(_listed)]
Prefix = Annotated[str, AfterValidator(_repository)]
Names = Annotated[tuple[Host, ...], BeforeValidator(_listed)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class UpstreamSettings(_Frozen):
    """One upstream registry, ``[upstreams.NAME]``."""

    url: Origin
    registry: str = ""
    realms: tuple[Origin, ...] = ()
    aliases: tuple[str, ...] = ()
    short_names: ShortNaming = "off"
    allow_networks: Networks = ()
    public: bool | None = None
    username: Annotated[str, AfterValidator(_username)] | None = None
    password_file: FilePath | None = None
    allow: Rules = ()
    deny: Rules = ()
    rewrite: dict[Prefix, Prefix] = Field(default_factory=dict)
    ca_file: FilePath | None = None
    proxy: str | None = Field(default=None, repr=False)
    addresses: dict[Host, Addresses] = Field(default_factory=dict)
    ip: Literal["4", "6", "4 6", "6 4"] = "6 4"
    connect_timeout: Annotated[float, Field(gt=0, le=60)] = 10.0
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60.0
    connections: Annotated[int, Field(ge=1, le=10_000)] = 64


class Settings(_Frozen):
    """Everything that an operator decides; docs/operating.md has a row for each."""

    domain: Host = "localhost"
    hosts: Annotated[str, AfterValidator(_pattern)] = "{name}.{domain}"
    names: Names = ()
    listen: Endpoints = ()
    operations: Annotated[str, AfterValidator(_operations)] = "tcp:9464:interface=127.0.0.1"
    networks: Networks = ("private",)
    trust_proxy: Proxies = ()
    grace: Seconds = 300.0
    log_format: Literal["text", "json"] = "text"
    cache: Path | None = None
    cache_size: Size | None = None
    min_free: Size = Amount(share=0.2)
    tag_ttl: Seconds = 60.0
    keep_vanished: bool = False
    upstreams: dict[Label, UpstreamSettings] = Field(default_factory=dict)
    default: Label | None = None

    def host(self, name: str) -> str:
        """The virtual host of an upstream."""
        return self.hosts.format(name=name, domain=self.domain).lower()

    @field_validator("default")
    @classmethod
    def _default_is_an_upstream(cls, default: str | None, info: ValidationInfo) -> str | None:
        upstreams = info.data.get("upstreams")
        if default is not None and upstreams is not None and default not in upstreams:
            raise ValueError(f"expected the name of an upstream: {', '.join(upstreams)}")
        return default


def load(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """What is in force: the command line over the environment over the file over the defaults.

    :param options: what the command line gave, by key; ``config`` names the file.
    :raises ConfigurationError: naming the key, where it stood, and what was expected.
    """
    variables = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(PREFIX) and not key.startswith(PASSWORD_PREFIX)
    }
    path = options.get("config") or variables.pop("config", None)
    variables.pop("config", None)
    sources = [
        (str(path), _read(Path(path)) if path else {}),
        _with_upstreams("the environment", variables),
        _with_upstreams("the command line", {k: v for k, v in options.items() if v and k != "config"}),
    ]
    merged: dict[str, Any] = {"cache": _default_cache(environ)}
    upstreams: dict[str, Any] = {known.name: _known(known) for known in KNOWN}
    for source, values in sources:
        for name, table in _tables(source, values).items():
            upstreams[name] = {**upstreams.get(name, {}), **table}
        merged.update({key: value for key, value in values.items() if key != "upstreams"})
    try:
        settings = Settings.model_validate({**merged, "upstreams": upstreams})
    except ValidationError as error:
        raise _explained(error, sources) from None
    _check_who_may_come(settings)
    return settings


def _check_who_may_come(settings: Settings) -> None:
    shared = [name for name, upstream in settings.upstreams.items() if upstream.username is not None]
    if shared and "networks" not in settings.model_fields_set:
        raise ConfigurationError(
            f"networks: is not named, and has to be: whoever reaches the mirror pulls from {shared[0]} with"
            f" the account of 'upstreams.{shared[0]}.username'"
        )


def _default_cache(environ: Mapping[str, str]) -> Path:
    """systemd's ``CacheDirectory=``, the system's place for root, or the user's own (XDG)."""
    if given := environ.get("CACHE_DIRECTORY"):
        return Path(given.partition(":")[0])
    if os.getuid() == 0:
        return Path("/var/cache/dockmirror")
    home = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".cache"
    return Path(home) / "dockmirror"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}") from None


def _tables(source: str, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tables = values.get("upstreams", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigurationError(
            f"{source}: upstreams: expected a table for each, such as [upstreams.docker]"
        )
    return tables


def _with_upstreams(source: str, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """``upstream``, a list of NAME=URL, made a table as the file has it."""
    rest = dict(values)
    pairs = [_pair(source, text) for text in _listed(rest.pop("upstream", ""))]
    return source, {"upstreams": {name: {"url": url} for name, url in pairs}, **rest}


def _pair(source: str, text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not equals:
        raise ConfigurationError(f"{source}: upstream: expected NAME=URL, not {text!r}")
    return name, url


def _known(known: Known) -> dict[str, Any]:
    return {
        "url": known.url,
        "registry": known.registry,
        "realms": known.realms,
        "aliases": known.aliases,
        "short_names": known.short_names,
    }


def _explained(
    error: ValidationError, sources: Sequence[tuple[str, Mapping[str, Any]]]
) -> ConfigurationError:
    """The first thing that is wrong, in a line."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part != "[key]"]
    stood = path[:-1] if first["type"] == "missing" else path
    where = next((f"{source}: " for source, values in reversed(sources) if _holds(values, stood)), "")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such setting"
    elif first["type"] == "missing":
        message = "is missing"
    return ConfigurationError(f"{where}{'.'.join(path) + ': ' if path else ''}{message}")


def _holds(values: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(values, dict):
            return True
        if key not in values:
            return False
        values = values[key]
    return bool(path)
