"""The guard lets in only requests with the token, to this host, from this server's own pages, of bounded size."""

import asyncio
import json

import pytest

from castalia.core.errors import UsageError
from castalia.web.guard import Guard, is_loopback
from castalia.web.listen import SHORTEST, bound, token_for

TOKEN = "t" * 20
HOST = "127.0.0.1:7860"


async def _app(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def ask(method="GET", path="/", *, headers=(), query=b"", token=TOKEN, parts=(b"",), **options):
    """Status, headers and body of one request."""
    said, left = [], list(parts)

    async def receive():
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message):
        said.append(message)

    given = {"host": HOST, **dict(headers)}
    pairs = [(k.encode(), v.encode("latin-1")) for k, v in given.items() if v is not None]
    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": pairs}
    asyncio.run(Guard(_app, token, **options)(scope, receive, send))
    return said[0]["status"], dict(said[0]["headers"]), said[1]["body"]


BEARER = {"authorization": f"Bearer {TOKEN}"}
COOKIE = {"cookie": f"castalia={TOKEN}"}


def test_token_is_asked_for_and_taken_in_three_ways():
    assert ask()[0] == 401
    assert ask(headers={"authorization": "Bearer wrong"})[0] == 401
    assert ask(headers={"cookie": "castalia=wrong"})[0] == 401
    assert ask(headers=BEARER)[0] == 200
    assert ask(headers=COOKIE)[0] == 200
    status, headers, _ = ask(query=b"token=" + TOKEN.encode())
    assert status == 303
    assert headers[b"location"] == b"/"
    assert b"HttpOnly" in headers[b"set-cookie"]
    assert b"SameSite=Strict" in headers[b"set-cookie"]
    assert ask(path="/api", query=b"token=" + TOKEN.encode())[0] == 401  # only the front door knows it
    assert ask(query=b"token=%ff&&=;")[0] == 401
    assert ask(query=b"token=\xff")[0] == 400
    assert ask(token=None)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", "", "[", "127.0.0.1@evil", "a,b"])
def test_other_names_are_refused_even_with_the_token(host):
    assert ask(headers={**BEARER, "host": host})[0] == 421


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:7860", "LOCALHOST"])
def test_names_of_this_machine_are_known(host):
    assert ask(headers={**BEARER, "host": host})[0] == 200


def test_further_names_are_known_where_they_are_given():
    assert ask(headers={**BEARER, "host": "box.lan:80"})[0] == 421
    assert ask(headers={**BEARER, "host": "box.lan:80"}, hosts=["Box.lan"])[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9", "https://127.0.0.1"])
def test_foreign_pages_are_refused(origin):
    for method in ("GET", "POST"):
        assert ask(method, headers={**COOKIE, "origin": origin})[0] == 403
        assert ask(method, headers={"origin": origin}, token=None)[0] == 403


def test_changes_with_the_cookie_need_their_own_page():
    assert ask("POST", headers=COOKIE)[0] == 403
    assert ask("POST", headers={**COOKIE, "origin": f"http://{HOST}"})[0] == 200
    assert ask("POST", headers=BEARER)[0] == 200  # a program that knows the token is no page


def test_bodies_are_bounded_whether_they_say_their_length_or_not():
    assert ask("POST", headers={**BEARER, "content-length": "11"}, most=10)[0] == 413
    assert ask("POST", headers=BEARER, parts=(b"123456", b"78901"), most=10)[0] == 413
    assert ask("POST", headers=BEARER, parts=(b"12345", b"67890"), most=10)[2] == b"1234567890"
    assert ask("POST", "/up/a", headers=BEARER, parts=(b"123456", b"78901"), most=10, more={"/up": 20})[0] == 200
    assert ask("POST", headers={**BEARER, "content-length": "-1"})[0] == 400
    assert ask("POST", headers={**BEARER, "content-length": "\u00b2"})[0] == 400


def test_answers_carry_the_headers_that_keep_pages_apart():
    for headers in (ask(headers=BEARER)[1], ask()[1]):
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert headers[b"x-frame-options"] == b"SAMEORIGIN"
    assert b"default-src 'self'" in ask(headers=BEARER)[1][b"content-security-policy"]
    assert "token" in json.loads(ask()[2])["error"]


def test_a_server_that_others_reach_needs_a_password(tmp_path):
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")
    assert len(token_for("127.0.0.1", None)) > 40
    with pytest.raises(UsageError, match="--password"):
        token_for("0.0.0.0", None)
    file = tmp_path / "password"
    for text in ("short", "with a space in it", "ü" * 20):
        file.write_text(text)
        with pytest.raises(UsageError, match=str(SHORTEST)):
            token_for("0.0.0.0", file)
    file.write_text("long-enough-to-do\n")
    assert token_for("0.0.0.0", file) == "long-enough-to-do"


def test_a_port_that_is_taken_is_told():
    first = bound("127.0.0.1", 0)
    with first, pytest.raises(UsageError, match="--port 0"):
        bound("127.0.0.1", first.getsockname()[1])
    with pytest.raises(UsageError, match="--port 0"):
        bound("127.0.0.1", 99999)
