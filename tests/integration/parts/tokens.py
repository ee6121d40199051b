"""A token service as distribution specifies it, with OAuth2, whose tokens docker-registry accepts."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from .accounts import Account, account_of, account_of_basic, granted
from .authority import Authority
from .server import Exchange, Server

#: The name of the registry that the tokens are for.
SERVICE = "registry of the tests"
ISSUER = "token service of the tests"
_LIFE = 300


@dataclass(frozen=True)
class TokenRequest:
    """One request that the token service got, and how it was answered."""

    method: str
    scopes: tuple[str, ...]
    account: str | None
    authorized: bool
    grant: str | None
    offline: bool
    status: int


class Tokens(Server):
    """The token service; it listens on a host of its own, so that its realm is not the registry's.

    :cvar given: the tokens of all services of the run.
    """

    given: ClassVar[list[str]] = []

    def __init__(self, authority: Authority, host: str = "127.0.0.2", oauth: bool = True) -> None:
        class Ask(_Exchange):
            tokens = self

        super().__init__(host, Ask)
        self.requests: list[TokenRequest] = []
        self.issued: list[str] = []
        self.oauth = oauth
        self._refresh: dict[str, Account] = {}
        self._key, certificate = authority.signer
        der = x509.load_pem_x509_certificate(certificate.certificate.read_bytes()).public_bytes(Encoding.DER)
        self._chain = [base64.b64encode(der).decode()]

    @property
    def realm(self) -> str:
        """The URL that a challenge names."""
        return f"{self.url}/token"

    def token(self, account: Account | None, scopes: list[str]) -> str:
        """A signed token for as much of *scopes* as *account* may have."""
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = granted(account, name, actions.split(",")) if kind == "repository" else []
            access.append({"type": kind, "name": name, "actions": allowed})
        claims = {
            "iss": ISSUER,
            "sub": account.name if account else "",
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 10,
            "exp": now + _LIFE,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        token = jwt.encode(claims, self._key, algorithm="RS256", headers={"x5c": self._chain})
        self._issue(token)
        return token

    def refresh_token(self, account: Account) -> str:
        """A secret that stands for *account* from now on."""
        secret = secrets.token_urlsafe()
        self._refresh[secret] = account
        self._issue(secret)
        return secret

    def _issue(self, secret: str) -> None:
        self.issued.append(secret)
        self.given.append(secret)

    def refreshed(self, secret: str) -> Account | None:
        """The account that a refresh token was given to."""
        return self._refresh.get(secret)


class _Exchange(Exchange):
    tokens: Tokens

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization")
        account = account_of_basic(authorization) if authorization else None
        query = parse_qs(urlsplit(self.path).query)
        self._conclude(query, account, refused=authorization is not None and account is None)

    def do_POST(self) -> None:
        form = parse_qs(self.body().decode())
        if not self.tokens.oauth:
            self._record(form, None, 404)
            self.answer(404, b"404 page not found")
            return
        first = {name: values[0] for name, values in form.items()}
        account = (
            self.tokens.refreshed(first.get("refresh_token", ""))
            if first.get("grant_type") == "refresh_token"
            else account_of(first.get("username", ""), first.get("password", ""))
        )
        self._conclude(form, account, refused=account is None)

    def _conclude(self, form: dict[str, list[str]], account: Account | None, refused: bool) -> None:
        scopes = [scope for value in form.get("scope", []) for scope in value.split()]
        self._record(form, account, 401 if refused else 200)
        if refused:
            error = {"code": "UNAUTHORIZED", "message": "incorrect username or password"}
            self.answer(401, json.dumps({"errors": [error]}).encode(), Content_Type="application/json")
            return
        token = self.tokens.token(account, scopes)
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        body = {"token": token, "access_token": token, "expires_in": _LIFE, "issued_at": issued}
        offline = form.get("offline_token") == ["true"] or form.get("access_type") == ["offline"]
        if account and (offline or form.get("grant_type") == ["refresh_token"]):
            body["refresh_token"] = self.tokens.refresh_token(account)
        self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def _record(self, form: dict[str, list[str]], account: Account | None, status: int) -> None:
        self.tokens.requests.append(
            TokenRequest(
                method=self.command,
                scopes=tuple(scope for value in form.get("scope", []) for scope in value.split()),
                account=account.name if account else None,
                authorized="Authorization" in self.headers,
                grant=form.get("grant_type", [None])[0],
                offline=form.get("offline_token") == ["true"],
                status=status,
            )
        )
