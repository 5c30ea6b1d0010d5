"""Who may ask over HTTP: accounts by their token, or a client's certificate; with neither, this machine only."""

import hmac
import ipaddress
import re
from collections.abc import Mapping

from fastapi import HTTPException, Request

from pacs.intake import Sender

PEER_NAME = "reticula.certificate"
_NO_AE_TITLE = re.compile(r"[^\x20-\x5b\x5d-\x7e]")


class Access:
    """tokens: by the name of the account. with_certificate: every client has shown one before it could ask."""

    def __init__(self, tokens: Mapping[str, str], *, with_certificate: bool) -> None:
        self._tokens = {name: token.encode() for name, token in tokens.items()}
        self._with_certificate = with_certificate

    def sender(self, request: Request) -> Sender:
        """Return who asks. Raises HTTPException: 401 without a token that is known, 403 where nobody else may ask."""
        address = request.client.host if request.client is not None else "::"
        if self._tokens:
            kind, _, given = request.headers.get("authorization", "").partition(" ")
            token = given.strip().encode() if kind.lower() == "bearer" else b""
            # All are compared, so that the time says nothing.
            found = [name for name, known in self._tokens.items() if hmac.compare_digest(known, token)]
            if not found or not token:
                raise HTTPException(401, "A bearer token of an account is needed.", {"WWW-Authenticate": "Bearer"})
            return Sender(found[0], address)
        if self._with_certificate:
            return Sender(_NO_AE_TITLE.sub("_", request.scope.get(PEER_NAME) or "certificate"), address)
        if not ipaddress.ip_address(address).is_loopback:
            raise HTTPException(403, "Without accounts and certificates only this machine may ask.")
        return Sender("HTTP", address)
