"""The same format on both sides: bytes pass as they are, and the three edits touch nothing else."""

from __future__ import annotations

import copy

import orjson
import pytest

from gateway.errors import InvalidRequest
from gateway.types import Operation
from tests.recordings import Recording, select
from translators import paths
from translators.plan import bind
from translators.providers import PROVIDERS

CHAT = bind(Operation.CHAT, PROVIDERS["openai"])
RECORDED = select("openai", "azure-openai", "openrouter", suffix="chat/completions")[::4]


def request(body: bytes, model: str, replacements: dict[int, str] | None = None, meter: bool = False):
    view = CHAT.view(body)
    return CHAT.request(body, view, model=model, replacements=replacements or {}, meter=meter)


def test_nothing_to_change_gives_the_very_same_object() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
    assert request(body, "m", meter=True).body is body


def test_usage_that_the_client_asked_for_is_left_alone() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
    translated = request(body, "m", meter=True)
    assert translated.body is body
    assert not translated.strip_usage


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"m","messages":[]}', b'{"model":"up","messages":[]}'),
        (b'{ "messages" : [ ] , "model" :\n"m" }', b'{ "messages" : [ ] , "model" :\n"up" }'),
        (b'{"model":"a\\"b","messages":[]}', b'{"model":"up","messages":[]}'),
        (b'{"messages":[]}', b'{"model":"up","messages":[]}'),
        (b" { } ", b' {"model":"up" } '),
        # In doubt the body is written anew:
        (b'{ "model":"m","metadata":{"model":"x"}}', b'{"model":"up","metadata":{"model":"x"}}'),
        (b'{ "mod\\u0065l":"m","metadata":{"model":"m"}}', b'{"model":"up","metadata":{"model":"m"}}'),
        (b'{ "mod\\u0065l":"m"}', b'{"model":"up"}'),
        (b'{ "user":"model","model":"m","x":"\\u0000"}', b'{"user":"model","model":"up","x":"\\u0000"}'),
    ],
)
def test_another_model(body: bytes, expected: bytes) -> None:
    assert request(body, "up").body == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"model":"m","stream":true,"messages":[]} ',
            b'{"model":"m","stream":true,"messages":[],"stream_options":{"include_usage":true}} ',
        ),
        (
            b'{"stream_options":{"include_obfuscation":false},"model":"m","stream":true}',
            b'{"stream_options":{"include_obfuscation":false,"include_usage":true},"model":"m","stream":true}',
        ),
        (
            b'{"stream_options":null,"model":"m","stream":true}',
            b'{"stream_options":{"include_usage":true},"model":"m","stream":true}',
        ),
        (
            b'{"stream_options":{"include_usage":false},"model":"m","stream":true}',
            b'{"stream_options":{"include_usage":true},"model":"m","stream":true}',
        ),
    ],
)
def test_usage_is_asked_for(body: bytes, expected: bytes) -> None:
    translated = request(body, "m", meter=True)
    assert translated.body == expected
    assert translated.strip_usage


def test_usage_is_not_asked_for_without_a_stream() -> None:
    body = b'{"model":"m","messages":[]}'
    assert request(body, "m", meter=True).body is body


def test_embeddings_never_get_stream_options() -> None:
    embeddings = bind(Operation.EMBEDDINGS, PROVIDERS["openai"])
    body = b'{"model":"m","input":"x"}'
    assert embeddings.request(body, embeddings.view(body), model="m", replacements={}, meter=True).body is body


def test_mistral_refuses_stream_options_so_they_are_left_out_and_told() -> None:
    mistral = bind(Operation.CHAT, PROVIDERS["mistral"])
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
    translated = mistral.request(body, mistral.view(body), model="m", replacements={}, meter=True)
    assert translated.body == b'{"model":"m","stream":true,"messages":[]}'
    assert translated.notes == ("stream_options: refused by mistral",)
    assert not translated.strip_usage
    plain = b'{"model":"m","stream":true,"messages":[]}'
    assert mistral.request(plain, mistral.view(plain), model="m", replacements={}, meter=True).body is plain


@pytest.mark.parametrize("recording", RECORDED, ids=str)
def test_all_edits_on_recorded_requests(recording: Recording) -> None:
    body = recording.request
    view = CHAT.view(body)
    found = view.texts()
    replacements = {index: f"<{index}>" for index in range(0, len(found), 3)}
    translated = CHAT.request(body, view, model="other", replacements=replacements, meter=True)
    expected = copy.deepcopy(recording.request_body)
    expected["model"] = "other"
    for index, text in replacements.items():
        paths.put(expected, found[index].path, text)
    if translated.strip_usage:
        expected.setdefault("stream_options", {})["include_usage"] = True
    assert orjson.loads(translated.body) == expected
    assert translated.strip_usage == (view.stream and not view.include_usage)


def test_an_answer_passes_as_it_is() -> None:
    body = b'{"choices":[]}'
    assert CHAT.answer(body, "m") is body


def test_an_identity_has_no_stream_translator() -> None:
    with pytest.raises(TypeError):
        CHAT.stream("m", include_usage=True)


def test_an_operation_that_the_provider_does_not_offer() -> None:
    with pytest.raises(InvalidRequest, match=r"perplexity.*embeddings"):
        bind(Operation.EMBEDDINGS, PROVIDERS["perplexity"])
