"""An issuer of access tokens on loopback: signs with keys of its own, rotates them, and misbehaves on demand."""

import json
import time
from typing import TYPE_CHECKING, Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    import asyncio

_MAKERS: dict[str, Any] = {
    "RS256": lambda: rsa.generate_private_key(65_537, 2_048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


class Issuer:
    """Metadata and keys over HTTP.

    Attributes:
        listed: the keys as they are shown.
        fetches: how often they were asked for.
        metadata: where it is shown: `oauth`, `oidc`, or nowhere.
        failing: answer 500 from now on.
        padding: characters of nothing that the list of keys has besides.
        hanging: keep every request waiting while this is set.
    """

    def __init__(self) -> None:
        self.listed: list[dict[str, Any]] = []
        self.fetches = 0
        self.metadata = "oauth"
        self.named: str | None = None
        self.failing = False
        self.padding = 0
        self.hanging: asyncio.Event | None = None
        self.private: dict[str, tuple[str, Any]] = {}
        self._number = 0
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/.well-known/oauth-authorization-server/realm", self._oauth)
        app.router.add_get("/realm/.well-known/openid-configuration", self._oidc)
        app.router.add_get("/realm/keys", self._keys)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/realm"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def rotate(self, algorithm: str = "ES256", *, keep: bool = False) -> str:
        """Make a new key and list it, alone or beside the old ones; its name."""
        self._number += 1
        kid = f"key-{self._number}"
        key = _MAKERS[algorithm]()
        self.private[kid] = (algorithm, key)
        public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
        self.listed = [*(self.listed if keep else ()), {**public, "kid": kid, "use": "sig"}]
        return kid

    def public_pem(self, kid: str) -> bytes:
        """A public key as text, which a forger would sign with as with a shared secret."""
        content: bytes = self.private[kid][1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return content

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of a good token; None takes one out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": "http://worker.example/mcp",
            "sub": "alice",
            "client_id": "desktop",
            "scope": "openid read",
            "iat": now,
            "exp": now + 300,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, kid: str | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token signed with a key, the newest where none is named."""
        name = kid or list(self.private)[-1]
        algorithm, key = self.private[name]
        return jwt.encode(self.claims(**changes), key, algorithm, headers={"kid": name, **(header or {})})

    async def _oauth(self, _request: web.Request) -> web.Response:
        return await self._described() if self.metadata == "oauth" else web.Response(status=404)

    async def _oidc(self, _request: web.Request) -> web.Response:
        return await self._described() if self.metadata == "oidc" else web.Response(status=404)

    async def _described(self) -> web.Response:
        return web.json_response({"issuer": self.named or self.url, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, _request: web.Request) -> web.Response:
        self.fetches += 1
        if self.hanging is not None:
            await self.hanging.wait()
        if self.failing:
            return web.Response(status=500)
        return web.Response(text=json.dumps({"keys": self.listed, "padding": " " * self.padding}))
