"""What an account logs in with."""

from __future__ import annotations

from attrs import field, frozen

from .credentials import Credentials
from .scope import Scope
from .token import TokenRequest


@frozen
class Login:
    """A name and a password, or an identity token, or neither: then it is anybody.

    :ivar credentials: the name and the password (Basic).
    :ivar identity_token: of which token services alone know.
    """

    credentials: Credentials | None = None
    identity_token: str | None = field(default=None, repr=False)

    def token_request(self, scope: Scope) -> TokenRequest:
        """The request for a token.

        Source: distribution's "Oauth2 Token Authentication", where an identity token is a refresh token.
        """
        if self.identity_token is None:
            return TokenRequest(scopes=(scope,), credentials=self.credentials)
        grant = {
            "grant_type": "refresh_token",
            "client_id": "dockmirror",
            "refresh_token": self.identity_token,
        }
        return TokenRequest(scopes=(scope,), form=True, parameters=tuple(grant.items()))
