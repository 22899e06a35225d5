"""The guard before every web server of Castalia: who may ask, from where, and how much.

A page in a browser can send requests to a server on the same machine, whatever site it came from. So each request must
name a host that this server is known by (a foreign name that resolves to this machine is refused), show the token
(a cookie that only this server's pages can send, or ``Authorization: Bearer``), and, where it changes something and
comes with the cookie, say that it comes from this server's own page. No request that only reads changes anything.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "castalia"
LOCAL = ("localhost", "127.0.0.1", "::1")
READING = ("GET", "HEAD", "OPTIONS")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
POLICY = (
    b"default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; style-src 'self'; script-src 'self'; "
    b"object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
"""What a page of ours may load: only what this server gives. A route may say something stricter itself."""


class TooLarge(Exception):
    """A body that was longer than its request may be."""


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a server that is bound to ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware that lets only the right requests in.

    Args:
        app: what is guarded.
        token: the secret; None asks for none, which is for servers that only this machine can reach and that keep
            nothing.
        hosts: further names that the server is known by; those of this machine always are.
        most: bytes of a body, at most.
        more: the same for paths that begin so, where other bounds hold: uploads.
    """

    def __init__(
        self,
        app: App,
        token: str | None,
        *,
        hosts: Sequence[str] = (),
        most: int = 1 << 20,
        more: dict[str, int] | None = None,
    ) -> None:
        self.app, self.token, self.most, self.more = app, token, most, more or {}
        self.hosts = {*LOCAL, *(host.strip("[]").lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        code, words = self.refusal(scope)
        if code == 303:
            await _answer(send, 303, {}, [(b"location", b"/"), (b"set-cookie", self._cookie())])
            return
        if code:
            await _answer(send, code, {"error": words})
            return
        limit = next((size for path, size in self.more.items() if scope["path"].startswith(path)), self.most)
        if int(_header(scope, b"content-length") or 0) > limit:
            await _answer(send, 413, {"error": f"A request may have {limit:,} bytes here, and this one has more."})
            return
        read, begun = 0, False

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise TooLarge
            return message

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                given = {name.lower() for name, _ in message["headers"]}
                own = [*HEADERS, (b"content-security-policy", POLICY), (b"cache-control", b"no-store")]
                message["headers"] = [*message["headers"], *(pair for pair in own if pair[0] not in given)]
            await send(message)

        try:
            await self.app(scope, bounded, with_headers)
        except TooLarge:
            if not begun:
                await _answer(send, 413, {"error": f"A request may have {limit:,} bytes here, and this one has more."})

    def refusal(self, scope: Scope) -> tuple[int, str]:
        """Status and words of a refusal, 303 for a first visit with the token, or 0 where the request may go on."""
        host = _header(scope, b"host")
        if _host_of(host) not in self.hosts:
            return 421, "This server is not known by that name."
        length = _header(scope, b"content-length")
        if length and not (length.isascii() and length.isdecimal() and len(length) < 16):
            return 400, "The length of the body is no number."
        if not scope["query_string"].isascii():
            return 400, "The address has characters that no address may have."
        origin, reading = _header(scope, b"origin"), scope["method"] in READING
        if origin and not self._own(origin, host):
            return 403, "Requests from other sites are refused."
        if self.token is None:
            return 0, ""
        if reading and scope["path"] == "/" and self._right(_query(scope, "token")):
            return 303, ""
        scheme, _, shown = _header(scope, b"authorization").partition(" ")
        if scheme.lower() == "bearer" and self._right(shown.strip()):
            return 0, ""
        if not self._right(_cookie_of(scope)):
            return 401, "The token is missing or wrong: open the address that was printed at the start."
        if not reading and not origin:
            return 403, "A request that changes something must say which page it comes from."
        return 0, ""

    def _right(self, shown: str) -> bool:
        """Whether a text is the token, in time that does not depend on where they differ."""
        return bool(shown) and hmac.compare_digest(shown.encode("utf-8", "replace"), str(self.token).encode())

    def _own(self, origin: str, host: str) -> bool:
        """Whether an origin is this very server; ``null`` is none."""
        return origin in (f"http://{host}", f"https://{host}")

    def _cookie(self) -> bytes:
        return f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=31536000".encode()


def _header(scope: Scope, name: bytes) -> str:
    """A header's value; of one that comes twice both, which fit nothing."""
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


def _host_of(text: str) -> str:
    """The name in a ``Host`` header, without its port."""
    try:
        return (urlsplit(f"//{text}").hostname or "").lower()
    except ValueError:
        return ""


def _query(scope: Scope, name: str) -> str:
    try:
        found = parse_qs(scope["query_string"].decode("ascii"), max_num_fields=20)
    except ValueError:
        return ""
    return found.get(name, [""])[0]


def _cookie_of(scope: Scope) -> str:
    try:
        found = SimpleCookie(_header(scope, b"cookie"))
    except CookieError:
        return ""
    return found[COOKIE].value if COOKIE in found else ""


async def _answer(send: Send, code: int, value: dict[str, Any], more: Sequence[tuple[bytes, bytes]] = ()) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS, *more]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
