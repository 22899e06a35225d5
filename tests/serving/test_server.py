"""The server, asked by the official client: answers are the offline ones, whoever else asks, leaves or talks nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from castalia.core.specs.text import TextSpec
from castalia.models.sequence.gpt2 import GPT2, GPT2Config
from castalia.models.sequence.writing import WritingOptions
from castalia.serving.drafts import Lookup
from castalia.serving.engine import Engine
from castalia.serving.request import Request
from castalia.web.guard import Guard
from tests.models.sequence.toys import LETTERS, letters, made

httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from castalia.serving.app import Server, make_app  # noqa: E402
from castalia.serving.completions import Limits  # noqa: E402

TOKEN = "a secret of some length"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def model() -> GPT2:
    found = made(GPT2, GPT2Config(2, 2, 16, init=0.4), letters(24))
    assert isinstance(found, GPT2)
    return found


@contextlib.contextmanager
def running(server: Server, token: str | None = None) -> Iterator[str]:
    """The server on a free port, in a thread; its address."""
    from castalia.web import listen

    found = listen.bound("127.0.0.1", 0)
    config = uvicorn.Config(Guard(make_app(server), token), log_level="warning", access_log=False, lifespan="on")
    served = uvicorn.Server(config)
    thread = threading.Thread(target=served.run, kwargs={"sockets": [found]}, daemon=True)
    thread.start()
    while not served.started:
        time.sleep(0.01)
    try:
        yield listen.address(found)
    finally:
        served.should_exit = True
        thread.join(10)
        found.close()
    assert not server.worker.alive


@pytest.fixture(scope="module")
def server() -> Server:
    return Server(Engine(model(), rows=4), "letters", Limits(tokens=2_000_000, texts=6, prompt=200), waiting=200)


@pytest.fixture(scope="module")
def address(server: Server) -> Iterator[str]:
    with running(server) as found:
        yield found


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as found:
        yield found


def offline(prompt: str, **request: Any) -> Any:
    options = {key: request.pop(key) for key in ("temperature", "length", "top_k", "top_p") if key in request}
    tokens = tuple(LETTERS.index(c) for c in prompt)
    return Engine(model()).run([Request(tokens, WritingOptions(**options), **request)])[0]


def test_models(client: Any) -> None:
    assert [one.id for one in client.models.list()] == ["letters"]
    assert client.models.retrieve("letters").owned_by == "castalia"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("digits")


def test_a_text_whole_and_in_pieces(client: Any) -> None:
    asked = {"model": "letters", "prompt": "abc", "max_tokens": 30, "seed": 7, "temperature": 0.9, "top_p": 0.95}
    text = offline("abc", seed=7, length=30, temperature=0.9, top_p=0.95)
    whole = client.completions.create(**asked)
    assert whole.choices[0].text == text.text
    assert whole.choices[0].finish_reason == text.reason
    assert whole.usage.prompt_tokens == 3
    assert whole.usage.completion_tokens == len(text.tokens)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert len(chunks) > 3
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == text.text
    assert chunks[-2].choices[0].finish_reason == text.reason
    assert chunks[-1].usage.completion_tokens == len(text.tokens)
    assert len({chunk.id for chunk in chunks}) == 1


def test_what_can_be_asked_for(client: Any) -> None:
    several = client.completions.create(
        model="letters", prompt=["abc", "d"], n=2, max_tokens=9, seed=3, echo=True, extra_body={"top_k": 3}
    )
    expected = [
        prompt + offline(prompt, seed=3, number=i, length=9, top_k=3).text
        for i, prompt in enumerate(("abc",) * 2 + ("d",) * 2)
    ]
    assert [choice.text for choice in several.choices] == expected
    tokens = client.completions.create(model="letters", prompt=[0, 1, 2], max_tokens=5, temperature=0)
    assert tokens.choices[0].text == offline("abc", length=5, temperature=0).text
    seed = next(seed for seed in range(99) if len(offline("abc", seed=seed, length=20).text) > 9)
    plain = offline("abc", seed=seed, length=20)
    stop = plain.text[4:6]
    stopped = client.completions.create(model="letters", prompt="abc", max_tokens=20, seed=seed, stop=[stop, "zz"])
    assert stopped.choices[0].text == plain.text[: plain.text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"
    marked = client.completions.create(
        model="letters", prompt="abc", max_tokens=4, temperature=0, logprobs=2, logit_bias={"4": 100}
    ).choices[0]
    assert marked.text == "eeee"
    assert marked.logprobs.tokens == ["e"] * 4
    assert marked.logprobs.text_offset == [0, 1, 2, 3]
    assert all(len(top) == 2 and max(top.values()) <= 0 for top in marked.logprobs.top_logprobs)
    matched = client.completions.create(
        model="letters", prompt="", max_tokens=12, extra_body={"regex": "(ab)+c"}, seed=1
    )
    assert matched.choices[0].text.startswith("ab")
    drawn = [client.completions.create(model="letters", prompt="", max_tokens=40) for _ in range(6)]
    assert len({one.choices[0].text for one in drawn}) > 1  # without a seed; two may be alike, and empty


NONSENSE: list[tuple[Any, str]] = [
    (b"{", "not JSON"),
    (b"[]", "must be a JSON object"),
    ({"model": "digits"}, "no model"),
    ({"max_token": 3}, "Did you mean"),
    ({"max_tokens": 0}, "whole number from 1"),
    ({"max_tokens": True}, "whole number"),
    ({"temperature": "hot"}, "number from 0 to 2"),
    ({"temperature": float("nan")}, "number from 0 to 2"),
    ({"top_p": 0}, "top_p"),
    ({"prompt": 3}, "prompt must be"),
    ({"prompt": [[99]]}, "below 11"),
    ({"prompt": "xyz"}, "vocabulary has no"),
    ({"prompt": "a" * 201}, "may have 200 tokens"),
    ({"prompt": ["a"] * 7}, "more than 6 texts"),
    ({"n": 7}, "n must be"),
    ({"best_of": 3}, "best_of"),
    ({"presence_penalty": 1}, "not supported"),
    ({"logprobs": 50}, "logprobs"),
    ({"echo": True, "logprobs": 1}, "leave echo"),
    ({"logit_bias": {"99": 1}}, "below 11"),
    ({"stop": [""]}, "stop"),
    ({"stream_options": 3}, "stream_options"),
    ({"suffix": "abc"}, "not learned to fill gaps"),
    ({"regex": "a("}, "no regular expression"),
    ({"regex": "a(", "stream": True}, "no regular expression"),
    ({"grammar": 3}, "grammar must be a text"),
    ({"grammar": 'start: "a"', "regex": "a"}, "one of regex, grammar"),
    ({"regex": "a", "response_format": {"type": "json_object"}}, "one of regex, grammar"),
    ({"response_format": "json"}, "response_format must be"),
    ({"response_format": {"type": "xml"}}, "response_format must be"),
    ({"response_format": {"type": "json_object", "schema": {}}}, "response_format must be"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "needs a schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "x": 1}}}, "no field 'x'"),
    ({"seed": 1.5}, "seed"),
]


@pytest.mark.parametrize(("body", "said"), NONSENSE, ids=lambda value: str(value)[:40])
def test_nonsense_is_refused_in_words(address: str, body: Any, said: str) -> None:
    if isinstance(body, dict):
        body = json.dumps({"model": "letters", "prompt": "a", **body}).encode()
    answer = httpx.post(f"{address}/v1/completions", content=body)
    assert answer.status_code in (400, 404)
    assert said in answer.json()["error"]["message"]


def test_json_and_grammars() -> None:
    pytest.importorskip("llguidance")
    model = made(GPT2, GPT2Config(2, 2, 16, init=0.4), TextSpec("bytes", 257, 32))
    server = Server(Engine(model, rows=4, draft=Lookup(most=3, run=1)), "bytes", waiting=40)
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}, "of": {"type": "integer"}},
        "required": ["name", "of"],
        "additionalProperties": False,
    }
    named = {"type": "json_schema", "json_schema": {"name": "thing", "strict": True, "schema": schema}}
    with running(server) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:

        def ask(**extra: Any) -> Any:
            return client.completions.create(
                model="bytes", prompt="a", max_tokens=200, seed=3, n=8, extra_body={**extra}
            ).choices

        choices = ask(response_format=named)
        values = [json.loads(choice.text) for choice in choices if choice.finish_reason == "stop"]
        assert len(values) > 4
        assert all(value.keys() == {"name", "of"} and isinstance(value["of"], int) for value in values)
        body = {"model": "bytes", "prompt": "a", "max_tokens": 200, "seed": 3, "extra_body": {"response_format": named}}
        chunks = list(client.completions.create(**body, stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == choices[0].text
        whole = [choice for choice in ask(response_format={"type": "json_object"}) if choice.finish_reason == "stop"]
        assert whole
        assert all(isinstance(json.loads(choice.text), dict) for choice in whole)
        assert {choice.text for choice in ask(grammar='start: "yes" | "no"')} == {"yes", "no"}
        (stuck, *_) = ask(grammar='start: "a" <[256]> "b"')
        assert (stuck.text, stuck.finish_reason) == ("a", "length")
        assert ask(response_format={"type": "text"})[0].text
        for wrong in ("start: nobody", "a" * 60_000):
            for stream in (True, False):
                with pytest.raises(openai.BadRequestError, match="grammar"):
                    client.completions.create(model="bytes", prompt="", extra_body={"grammar": wrong}, stream=stream)
        schema["properties"]["of"] = {"type": "number of things"}  # type: ignore[index]
        with pytest.raises(openai.BadRequestError, match="cannot be used"):
            ask(response_format=named)


def test_sixty_four_clients_some_of_whom_leave(server: Server, address: str) -> None:
    """Every good answer is the offline one, and nothing is left behind."""
    good = {
        i: {"prompt": "abcdefghij"[i % 10] * (i % 5), "seed": i, "max_tokens": 5 + i % 40, "temperature": (i % 3) / 2}
        for i in range(64)
        if i % 4 in (0, 1)
    }
    expected = {
        i: offline(body["prompt"], seed=i, length=body["max_tokens"], temperature=body["temperature"]).text
        for i, body in good.items()
    }
    answers: dict[int, str] = {}
    refused: list[int] = []

    async def one(client: Any, i: int) -> None:
        await asyncio.sleep(i % 7 / 50)
        if i in good:
            body = {"model": "letters", **good[i]}
            if i % 8 < 4:
                answer = await client.post("/v1/completions", json=body)
                answers[i] = answer.json()["choices"][0]["text"]
                return
            async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
                lines = [line[6:] async for line in stream.aiter_lines() if line.startswith("data: ")]
            assert lines.pop() == "[DONE]"
            answers[i] = "".join(json.loads(line)["choices"][0]["text"] for line in lines)
        elif i % 4 == 2:  # a long text, of which only the beginning is waited for, or nothing
            body = {"model": "letters", "max_tokens": 1_000_000, "stream": i % 8 == 2, "logit_bias": {"10": -100}}
            with contextlib.suppress(httpx.ReadTimeout):
                async with client.stream("POST", "/v1/completions", json=body, timeout=0.3) as stream:
                    async for _ in stream.aiter_lines():
                        break
        else:
            kind = i // 4 % 3
            body = [b"{" * i, b'{"model": "letters", "n": -1}', b"\xff\xfe"][kind]
            refused.append((await client.post("/v1/completions", content=body)).status_code)

    async def everybody() -> None:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
            await asyncio.gather(*(one(client, i) for i in range(64)))

    asyncio.run(everybody())
    assert answers == expected
    assert refused == [400] * 16
    until = time.monotonic() + 5
    while server.worker.texts and time.monotonic() < until:
        time.sleep(0.02)
    assert server.worker.texts == 0
    assert not server.engine.rows
    assert not server.engine.waiting
    numbers = dict(line.rsplit(" ", 1) for line in httpx.get(f"{address}/metrics").text.splitlines() if line[0] != "#")
    assert numbers["castalia_texts_running"] == numbers["castalia_texts_waiting"] == "0"
    assert int(numbers["castalia_texts_cancelled_total"]) >= 16
    assert int(numbers['castalia_requests_total{route="/v1/completions",status="400"}']) >= 16
    assert numbers["castalia_up"] == "1"


def test_the_queue_is_bounded_and_time_ends_a_text() -> None:
    server = Server(Engine(model(), rows=1), "letters", Limits(tokens=10**9, seconds=0.6), waiting=1)
    asked = {"model": "letters", "max_tokens": 10**9, "logit_bias": {"10": -100}, "stream": True}
    with (
        running(server) as address,
        httpx.stream("POST", f"{address}/v1/completions", json=asked, timeout=30) as stream,
    ):
        whole = {"json": {**asked, "stream": False}, "timeout": 30}
        waiting = threading.Thread(target=httpx.post, args=(f"{address}/v1/completions",), kwargs=whole)
        waiting.start()
        while server.worker.texts < 2:
            time.sleep(0.01)
        answer = httpx.post(f"{address}/v1/completions", json=asked)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert "later" in answer.json()["error"]["message"]
        lines = [line for line in stream.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert json.loads(lines[-2][6:])["choices"][0]["finish_reason"] == "length"
        waiting.join(10)
        assert not waiting.is_alive()


def test_every_route_wants_the_token() -> None:
    server = Server(Engine(model(), rows=1), "letters")
    app = make_app(server)
    routes = [(method, route.path) for route in app.routes for method in route.methods]  # type: ignore[attr-defined]
    assert {path for _, path in routes} == {"/v1/models", "/v1/models/{name}", "/v1/completions", "/metrics"}
    with running(server, TOKEN) as address:
        for method, path in routes:
            url = address + path.format(name="letters")
            assert httpx.request(method, url).status_code == 401
            assert httpx.request(method, url, headers={"Authorization": "Bearer x"}).status_code == 401
            known = httpx.request(method, url, headers={"Authorization": f"Bearer {TOKEN}"})
            assert known.status_code == (400 if method == "POST" else 200)
        client = openai.OpenAI(base_url=f"{address}/v1", api_key=TOKEN, max_retries=0)
        assert client.completions.create(model="letters", prompt="a", max_tokens=2).choices[0].text is not None
        assert httpx.get(f"{address}/metrics", headers={"Host": "evil.example"}).status_code == 421
        body = b'{"model": "' + b"a" * (1 << 20) + b'"}'
        large = httpx.post(f"{address}/v1/completions", content=body, headers={"Authorization": f"Bearer {TOKEN}"})
        assert large.status_code == 413


def test_a_failure_ends_texts_and_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(Engine(model(), rows=2), "letters")
    step, broken = server.engine.step, [True]

    def failing() -> Any:
        if broken:
            broken.pop()
            raise RuntimeError("a fault")
        return step()

    monkeypatch.setattr(server.engine, "step", failing)
    with running(server) as address:
        asked = {"model": "letters", "prompt": "a", "max_tokens": 3}
        answer = httpx.post(f"{address}/v1/completions", json=asked)
        assert answer.status_code == 500
        assert "a fault" in answer.json()["error"]["message"]
        assert httpx.post(f"{address}/v1/completions", json=asked).status_code == 200
        assert server.worker.texts == 0


def test_a_suffix_is_filled_in() -> None:
    """What the model is asked is the prompt with its marks, and no mark comes back."""
    from dataclasses import replace

    from castalia.media.text.middle import asked

    spec = replace(letters(24), size=14, middles=True)
    filling = made(GPT2, GPT2Config(2, 2, 16, init=0.4), spec)
    server = Server(Engine(filling, rows=2), "letters")
    prompt = tuple(asked(spec, "abcdefghijabcdefghij", "jih", 24 - 6, suffix_first=True))
    bias = dict.fromkeys(spec.marks, float("-inf"))
    text = Engine(filling).run([Request(prompt, WritingOptions(length=6), seed=4, bias=bias)])[0]
    with running(server) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        body = {"model": "letters", "prompt": "abcdefghijabcdefghij", "max_tokens": 6, "seed": 4}
        filled = client.completions.create(**body, suffix="jih")
        assert filled.choices[0].text == text.text
        assert filled.usage.prompt_tokens == len(prompt)
        assert client.completions.create(**body).usage.prompt_tokens == 20
        for wrong in ({"suffix": "jih", "max_tokens": 22}, {"suffix": "jih", "prompt": ["a", "b"]}):
            with pytest.raises(openai.BadRequestError):
                client.completions.create(**{**body, **wrong})
