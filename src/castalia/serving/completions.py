"""OpenAI's completions in words: what a body asks for, and how answers are put."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from castalia.core.errors import UsageError, near
from castalia.core.specs.text import TextSpec
from castalia.media.text.middle import asked as ask_for_middle
from castalia.media.text.tokens import END, tokens_of
from castalia.models.sequence.writing import WritingOptions
from castalia.serving.grammars import of_schema
from castalia.serving.request import Piece, Request, Score
from castalia.version import __version__

_NAMES = """
model prompt suffix max_tokens temperature top_p n stream stream_options logprobs echo stop presence_penalty
frequency_penalty best_of logit_bias seed user response_format top_k min_p repetition_penalty regex grammar
"""
FIELDS = frozenset(_NAMES.split())
"""What a body may have; the last five are ours, and ``response_format`` is OpenAI's in chats."""


class Refused(Exception):
    """A body that asks for something that cannot be given.

    Attributes:
        status: of the answer.
        field: which part of the body is wrong.
    """

    def __init__(self, words: str, field: str | None = None, status: int = 400) -> None:
        super().__init__(words)
        self.status, self.field = status, field


def error(words: str, field: str | None = None, kind: str = "invalid_request_error") -> dict[str, Any]:
    """An error as clients of OpenAI expect it."""
    return {"error": {"message": words, "type": kind, "param": field, "code": None}}


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        tokens: to write in one text.
        prompt: tokens of a prompt.
        texts: at once.
        seconds: until an answer ends with what there is.
    """

    tokens: int = 1_024
    prompt: int = 16_384
    texts: int = 16
    seconds: float = 120.0


@dataclass(frozen=True)
class Wanted:
    """What a body asks for.

    Attributes:
        requests: of the engine, in the order of the choices.
        stream: whether pieces are wanted as they come.
        usage: whether a stream ends with numbers of tokens.
        echo: what stands before each text.
        prompts: tokens of all prompts.
        scores: whether log-probabilities are wanted.
    """

    requests: tuple[Request, ...]
    stream: bool
    usage: bool
    echo: tuple[str, ...]
    prompts: int
    scores: bool


def read(body: bytes, spec: TextSpec, names: Sequence[str], limits: Limits) -> Wanted:
    """What a body asks for.

    Args:
        body: JSON.
        spec: of the model's texts.
        names: that the model is known by.
        limits: what may be asked for.

    Raises:
        Refused: the text says what is wrong.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as failure:
        raise Refused(f"The body is not JSON: {str(failure)[:100]}") from failure
    if not isinstance(data, dict):
        raise Refused("The body must be a JSON object.")
    fields = _Fields(data)
    for name in data:
        if name not in FIELDS:
            raise Refused(f"There is no field {name[:60]!r}. {near(name[:60], FIELDS)}", name[:60])
    model = fields.text("model", "")
    if model not in names:
        raise Refused(f"There is no model {model[:80]!r} here, only {names[0]!r}.", "model", 404)
    for name in ("presence_penalty", "frequency_penalty"):
        if fields.number(name, 0.0, -2, 2):
            raise Refused(f"{name} is not supported; repetition_penalty is.", name)
    n = fields.whole("n", 1, 1, limits.texts)
    if fields.whole("best_of", n, 1, 1 << 16) != n:
        raise Refused("best_of is not supported: ask for n texts, with logprobs.", "best_of")
    length = fields.whole("max_tokens", 16, 1, limits.tokens)
    prompts = _prompts(data.get("prompt"), spec)
    suffix = fields.text("suffix", "")
    bias = _bias(data.get("logit_bias"), spec)
    echo = fields.truth("echo")
    top = fields.optional("logprobs", 20)
    if echo and top is not None:
        raise Refused("Log-probabilities of a prompt are not given: leave echo or logprobs out.", "echo")
    if suffix:
        if len(prompts) != 1 or not isinstance(prompts[0][0], str):
            raise Refused("A suffix goes with one prompt, which is a text.", "suffix")
        try:
            middle = ask_for_middle(spec, prompts[0][0], suffix, spec.length - length, suffix_first=True)
        except UsageError as failure:
            raise Refused(f"suffix: {failure}", "suffix") from failure
        prompts = [(prompts[0][0], middle)]
        bias = {**bias, **dict.fromkeys(spec.marks, -math.inf)}
    if any(len(tokens) > limits.prompt for _, tokens in prompts):
        raise Refused(f"A prompt may have {limits.prompt:,} tokens.", "prompt")
    if len(prompts) * n > limits.texts:
        raise Refused(f"{len(prompts)} prompts with n={n} are more than {limits.texts} texts at once.", "n")
    try:
        options = WritingOptions(
            temperature=fields.number("temperature", 1.0, 0, 2),
            length=length,
            top_k=fields.whole("top_k", 0, 0, 1 << 30),
            top_p=fields.number("top_p", 1.0, 0, 1),
            min_p=fields.number("min_p", 0.0, 0, 1),
            repetition=fields.number("repetition_penalty", 1.0, 0.01, 100),
        )
    except ValueError as failure:
        raise Refused(str(failure)) from failure
    seed = data.get("seed")
    seed = secrets.randbits(62) if seed is None else fields.whole("seed", 0, -(1 << 63), 1 << 63)
    stops = _stops(data.get("stop"))
    pattern, grammar = fields.text("regex", ""), fields.text("grammar", "")
    form = _format(data.get("response_format"))
    if sum(map(bool, (pattern, grammar, form))) > 1:
        raise Refused("A text can have one of regex, grammar and response_format.", "grammar" if grammar else "regex")
    requests = tuple(
        Request(tuple(tokens), options, seed, place * n + i, stops, bias, top, pattern, grammar or form)
        for place, (_, tokens) in enumerate(prompts)
        for i in range(n)
    )
    said = [text if isinstance(text, str) else tokens_of(spec).decode(text) for text, _ in prompts]
    usage = data.get("stream_options")
    if usage is not None and not isinstance(usage, dict):
        raise Refused("stream_options is an object.", "stream_options")
    return Wanted(
        requests,
        fields.truth("stream"),
        bool(usage and usage.get("include_usage")),
        tuple(text if echo else "" for text in said for _ in range(n)),
        sum(len(tokens) for _, tokens in prompts),
        top is not None,
    )


class _Fields:
    """Fields of a body with their types and bounds; null is as if it were not there."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data

    def text(self, name: str, default: str) -> str:
        value = self.data.get(name)
        if value is not None and not isinstance(value, str):
            raise Refused(f"{name} must be a text.", name)
        return default if value is None else value

    def truth(self, name: str) -> bool:
        value = self.data.get(name)
        if value is not None and not isinstance(value, bool):
            raise Refused(f"{name} must be true or false.", name)
        return bool(value)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.data.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise Refused(f"{name} must be a number from {low:g} to {high:g}.", name)
        return float(value)

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        value = self.data.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Refused(f"{name} must be a whole number from {low:,} to {high:,}.", name)
        return value

    def optional(self, name: str, high: int) -> int | None:
        return None if self.data.get(name) is None else self.whole(name, 0, 0, high)


def _prompts(prompt: Any, spec: TextSpec) -> list[tuple[str | list[int], list[int]]]:
    """Prompts as they were given, and as tokens."""
    if prompt is None:
        return [("", [])]
    if isinstance(prompt, str):
        prompt = [prompt]
    if isinstance(prompt, list) and prompt and all(_is_token(token, spec) for token in prompt):
        prompt = [prompt]
    fits = isinstance(prompt, list) and 0 < len(prompt) <= 1024
    if not fits or not all(_is_prompt(one, spec) for one in prompt):
        raise Refused(
            f"prompt must be a text, tokens (whole numbers below {spec.size:,}), or a list of either.", "prompt"
        )
    try:
        return [(one, tokens_of(spec).encode(one).tolist() if isinstance(one, str) else one) for one in prompt]
    except UsageError as failure:
        raise Refused(f"prompt: {failure}", "prompt") from failure


def _is_token(value: Any, spec: TextSpec) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < spec.size


def _is_prompt(value: Any, spec: TextSpec) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(_is_token(token, spec) for token in value))


def _bias(value: Any, spec: TextSpec) -> dict[int, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > 1024:
        raise Refused("logit_bias is an object of at most 1,024 tokens and numbers.", "logit_bias")
    found = {}
    for key, number in value.items():
        good = isinstance(number, int | float) and not isinstance(number, bool) and -100 <= number <= 100
        if not (good and key.isascii() and key.isdecimal() and len(key) < 10 and int(key) < spec.size):
            raise Refused(
                f"logit_bias: {key[:20]!r} must be a token below {spec.size:,}, and its number from -100 to 100.",
                "logit_bias",
            )
        found[int(key)] = float(number)
    return found


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or len(stops) > 8
        or not all(isinstance(s, str) and 0 < len(s) <= 200 for s in stops)
    ):
        raise Refused("stop must be a text or up to 8 of them, each of 1 to 200 characters.", "stop")
    return tuple(stops)


def _format(value: Any) -> str:
    """The grammar of what is called a format of the response; none for any text."""
    if value is None or value == {"type": "text"}:
        return ""
    if value == {"type": "json_object"}:
        return of_schema({"type": "object"})
    wanted = value.get("json_schema") if isinstance(value, dict) and value.get("type") == "json_schema" else None
    if not isinstance(wanted, dict) or value.keys() != {"type", "json_schema"}:
        words = 'response_format must be of type "text", "json_object", or "json_schema" with a schema in it.'
        raise Refused(words, "response_format")
    for name in wanted:
        if name not in ("name", "description", "strict", "schema"):
            raise Refused(f"There is no field {name[:60]!r} in json_schema.", "response_format")
    if not isinstance(schema := wanted.get("schema"), dict | bool):
        raise Refused("json_schema needs a schema, which is an object.", "response_format")
    return of_schema(schema)


# answers


def head(name: str, number: str, created: int) -> dict[str, Any]:
    """What every answer has."""
    return {
        "id": number,
        "object": "text_completion",
        "created": created,
        "model": name,
        "system_fingerprint": f"castalia-{__version__}",
    }


def usage(prompts: int, written: int) -> dict[str, int]:
    """Numbers of tokens."""
    return {"prompt_tokens": prompts, "completion_tokens": written, "total_tokens": prompts + written}


class Choice:
    """One of the texts of an answer.

    Args:
        index: which.
        pieces: the bytes of every token.
        scores: whether log-probabilities are wanted.
    """

    def __init__(self, index: int, pieces: Sequence[bytes], scores: bool) -> None:
        self.index, self.pieces, self.scores = index, pieces, scores
        self.text, self.reason, self.tokens = "", "", 0
        self._offset = 0
        self._marks: list[Score] = []

    def add(self, piece: Piece) -> dict[str, Any]:
        """Take a piece, and put it as a chunk of a stream."""
        self.text += piece.text
        self.tokens += len(piece.tokens)
        self._marks += piece.scores
        if piece.reason is not None:
            self.reason = "stop" if piece.reason == "stop" else "length"
        return self._put(piece.text, piece.scores, self.reason or None)

    def whole(self, before: str = "") -> dict[str, Any]:
        """All of it, behind what stands before it."""
        self._offset = 0
        return self._put(before + self.text, self._marks, self.reason or "length")

    def _put(self, text: str, scores: Sequence[Score], reason: str | None) -> dict[str, Any]:
        return {
            "text": text,
            "index": self.index,
            "logprobs": self._logprobs(scores) if self.scores else None,
            "finish_reason": reason,
        }

    def _logprobs(self, scores: Sequence[Score]) -> dict[str, Any]:
        offsets = []
        for score in scores:
            offsets.append(self._offset)
            self._offset += len(self.pieces[score.token].decode("utf-8", "ignore"))
        return {
            "tokens": [self._name(score.token) for score in scores],
            "token_logprobs": [max(score.logprob, -9999.0) for score in scores],
            "top_logprobs": [{self._name(t): max(p, -9999.0) for t, p in score.top} for score in scores],
            "text_offset": offsets,
        }

    def _name(self, token: int) -> str:
        """A token as a text; one that is no whole character by its bytes, so that no two are the same."""
        piece = self.pieces[token]
        if not piece:
            return END if token == len(self.pieces) - 1 else f"<|mark{len(self.pieces) - 1 - token}|>"
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{b:02x}" for b in piece)
