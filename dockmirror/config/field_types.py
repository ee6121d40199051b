"""How settings are written: each kind is checked, and put into one spelling."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
)

from ..oci.errors import NameInvalid
from ..oci.reference import Repository
from ..system.networks import parse_networks

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_PORT = r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6(?:[0-4][0-9]{3}|5(?:[0-4][0-9]{2}|5(?:[0-2][0-9]|3[0-5])))"
_REGISTRY = re.compile(rf"(?:[A-Za-z0-9][A-Za-z0-9._-]*(?::(?:{_PORT}))?)?")
_NETLOC = re.compile(rf"(?:{_HOST.pattern}|\[[0-9A-Fa-f:.]+\])(?::(?:{_PORT}))?")
_EMAIL = re.compile(r"[^@\s,:;?]+@[^@\s,:;?]+")
_RULE = re.compile(r"[a-z0-9._/*?-]+(:[A-Za-z0-9._*?-]+|@[a-z0-9+._:*?-]+)?")
_BUCKET = re.compile(r"(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._=+-]+)*/?")
_PROGRAM = re.compile(r"[A-Za-z0-9._-]+|/[^\0]*[^\0/]")


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("expected a host name, without scheme, port and path")
    return text.lower().rstrip(".")


def _registry(text: str) -> str:
    if not _REGISTRY.fullmatch(text):
        raise ValueError("expected what image names begin with, such as ghcr.io or registry.example.com:5000")
    return text


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.username is not None:
        raise ValueError("expected an address without a name and a password in it")
    rest = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not _NETLOC.fullmatch(parts.netloc) or rest:
        raise ValueError("expected an address such as https://registry.example.com, without a path")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _https_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise ValueError("expected an address such as https://acme-v02.api.letsencrypt.org/directory")
    return text


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise ValueError("expected an e-mail address such as you@example.com")
    return text


def _bucket(text: str) -> str:
    if not _BUCKET.fullmatch(text):
        raise ValueError("expected the address of a bucket, and perhaps a prefix in it: s3://bucket/prefix")
    return text.rstrip("/")


def _several(value: object) -> object:
    return (_origin(value),) if isinstance(value, str) else value


def _pattern(text: str) -> str:
    if "{name}" not in text or not _HOST.fullmatch(text.replace("{name}", "a").replace("{domain}", "b")):
        raise ValueError('expected a host name with {name} in it, such as "{name}.{domain}"')
    return text


def _network(text: str) -> str:
    try:
        list(parse_networks([text]))
        return text
    except ValueError:
        meant = _without_host(text)
        hint = f"; {text} lies in {meant}" if meant else ""
        raise ValueError(
            f'expected a network such as 192.168.0.0/16, or "private", or "public"{hint}'
        ) from None


def _without_host(text: str) -> str | None:
    """The network of an address that was written with its mask."""
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return None


def _file(path: Path) -> Path:
    try:
        status = path.stat()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if not S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no file")
    return path


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("expected an address such as 192.0.2.1") from None


def _username(text: str) -> str:
    if not text or ":" in text or not text.isprintable():
        raise ValueError("expected a name without a colon in it")
    return text


def _program(text: str) -> str:
    if not _PROGRAM.fullmatch(text):
        raise ValueError('expected a name such as "ecr-login", or the path of a program')
    return text


def _rule(text: str) -> str:
    if not _RULE.fullmatch(text):
        raise ValueError('expected a pattern such as "library/*", "library/nginx:1.*" or "team/**@sha256:*"')
    return text


def _tags_rule(text: str) -> str:
    if "@" in text or not _RULE.fullmatch(text):
        raise ValueError('expected a pattern of tags such as "library/*:latest", "library/*" or "**"')
    return text


def _of_all(value: object) -> object:
    """A number for itself is that of every tag."""
    return value if isinstance(value, dict) else {"**": value}


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


def _directory(value: object) -> object:
    if value == "":
        raise ValueError("expected a directory")
    return value


def listed(value: Any) -> Any:
    """One text, as the environment gives it, is a list of words."""
    return value.split() if isinstance(value, str) else value


Host = Annotated[str, AfterValidator(_host)]
RegistryName = Annotated[str, AfterValidator(_registry)]
RegistryNames = Annotated[tuple[RegistryName, ...], BeforeValidator(listed)]
File = Annotated[Path, AfterValidator(_file)]
Email = Annotated[str, AfterValidator(_email)]
HttpsUrl = Annotated[str, AfterValidator(_https_url)]
Label = Annotated[str, AfterValidator(_label)]
BucketAddress = Annotated[str, AfterValidator(_bucket)]
Origin = Annotated[str, AfterValidator(_origin)]
Origins = Annotated[tuple[Origin, ...], Field(min_length=1), BeforeValidator(_several)]
NetworkName = Annotated[str, AfterValidator(_network)]
Networks = Annotated[tuple[NetworkName, ...], BeforeValidator(listed)]
Proxies = Annotated[tuple[Annotated[str, AfterValidator(_proxy)], ...], BeforeValidator(listed)]
Endpoints = Annotated[tuple[Annotated[str, AfterValidator(_endpoint)], ...], BeforeValidator(listed)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Timeout = Annotated[float, Field(gt=0, le=3600)]
Directory = Annotated[Path, BeforeValidator(_directory)]
Addresses = Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], BeforeValidator(listed)]
Rules = Annotated[tuple[Annotated[str, AfterValidator(_rule)], ...], BeforeValidator(listed)]
TagTtl = Annotated[
    dict[Annotated[str, AfterValidator(_tags_rule)], Seconds],
    BeforeValidator(_of_all),
]
Prefix = Annotated[str, AfterValidator(_repository)]
Names = Annotated[tuple[Host, ...], BeforeValidator(listed)]
Username = Annotated[str, AfterValidator(_username)]
Program = Annotated[str, AfterValidator(_program)]
HostPattern = Annotated[str, AfterValidator(_pattern)]
OperationsEndpoint = Annotated[str, AfterValidator(_operations)]
