"""Forms: every field where it stands, nothing else changed, and no form that two readers could take differently."""

from __future__ import annotations

import email
import email.policy
import os

import httpx
import pytest

from gateway.errors import InvalidRequest
from gateway.types import Operation
from translators import multipart
from translators.openai_media import FormView, form
from translators.plan import bind
from translators.providers import row_of

TRANSCRIBE = bind(Operation.TRANSCRIPTIONS, row_of("openai"))
B = b"boundary123"


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    file = f'; filename="{filename}"\r\nContent-Type: audio/wav' if filename else ""
    return b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (
        B,
        name.encode(),
        file.encode(),
        content,
    )


def whole(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--%b--\r\n" % B


SOUND = os.urandom(2000)
FORM = whole(part("file", SOUND, "a.wav"), part("model", b"whisper-1"), part("prompt", "héllo".encode()))
KIND = b"multipart/form-data; boundary=" + B


def read(body: bytes, kind: bytes = KIND) -> FormView:
    view = form(body, [kind])
    assert isinstance(view, FormView)
    return view


def test_fields_and_where_they_stand() -> None:
    fields = multipart.parse(FORM, B)
    assert [(field.name, field.is_file) for field in fields] == [("file", True), ("model", False), ("prompt", False)]
    assert [FORM[field.start : field.end] for field in fields] == [SOUND, b"whisper-1", "héllo".encode()]


def test_what_the_python_sdks_client_sends_is_read_as_it_was_meant() -> None:
    data = {"model": "whisper-1", "timestamp_granularities[]": ["word", "segment"], "stream": "true", "prompt": ""}
    request = httpx.Request("POST", "http://x", data=data, files={"file": ("ä.wav", SOUND, "audio/wav")})
    view = read(request.read(), request.headers["content-type"].encode())
    assert (view.model, view.stream) == ("whisper-1", True)
    assert [field.name for field in view.fields].count("timestamp_granularities[]") == 2
    parsed = email.message_from_bytes(
        b"content-type: " + request.headers["content-type"].encode() + b"\r\n\r\n" + view.body, policy=email.policy.HTTP
    )
    contents = [item.get_payload(decode=True) for item in parsed.iter_parts()]
    assert contents == [view.body[field.start : field.end] for field in view.fields]


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Disposition: form-data; name=model",
        b'content-disposition:form-data;name="model"',
        b'Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name="model"',
    ],
)
def test_other_spellings(head: bytes) -> None:
    assert read(b"--%b\r\n%b\r\n\r\nx\r\n--%b--" % (B, head, B)).model == "x"


@pytest.mark.parametrize(
    "kind", [b'multipart/form-data; boundary="boundary123"', b"Multipart/Form-Data;BOUNDARY=boundary123"]
)
def test_other_spellings_of_the_boundary(kind: bytes) -> None:
    assert read(FORM, kind).model == "whisper-1"


@pytest.mark.parametrize(
    "kinds",
    [
        [],
        [KIND, KIND],
        [b"text/plain"],
        [b"multipart/form-data"],
        [b"multipart/mixed; boundary=boundary123"],
        [b"multipart/form-data; boundary=boundary123; boundary=other"],
        [b"multipart/form-data; boundary=other; boundary=boundary123"],
        [b"multipart/form-data; boundary=" + b"x" * 71],
    ],
)
def test_a_content_type_that_leaves_a_doubt(kinds: list[bytes]) -> None:
    with pytest.raises(InvalidRequest):
        form(FORM, kinds)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--other\r\n\r\n--other--\r\n",
        b"preamble\r\n" + FORM,
        FORM + b"epilogue",
        FORM[:-4],
        FORM[: len(FORM) // 2],
        FORM.replace(b"--boundary123\r\n", b"--boundary123 \r\n", 1),
        FORM.replace(b"--boundary123\r\n", b"--boundary123\n", 1),
        whole(part("model", b"a"), part("model", b"b")),
        whole(part("model", b"a", "model.txt")),
        whole(part("stream", b"true"), part("stream", b"false")),
        whole(b'--%b\r\nContent-Disposition: form-data; name="a"; name="model"\r\n\r\nx\r\n' % B),
        whole(b"--%b\r\nContent-Disposition: form-data; name*=utf-8''model\r\n\r\nx\r\n" % B),
        whole(b'--%b\r\nContent-Disposition: form-data;\r\n name="model"\r\n\r\nx\r\n' % B),
        whole(b'--%b\r\nContent-Disposition: attachment; name="model"\r\n\r\nx\r\n' % B),
        whole(b"--%b\r\nContent-Type: text/plain\r\n\r\nx\r\n" % B),
        whole(
            b'--%b\r\nContent-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="b"\r\n\r\nx\r\n'
            % B
        ),
        whole(
            b'--%b\r\nContent-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n'
            % B
        ),
        whole(part("model", b"\xff")),
        whole(*[part("a", b"")] * (multipart.MAX_PARTS + 1)),
        whole(part("prompt", b"x" * (multipart.MAX_FIELD_BYTES + 1))),
    ],
)
def test_a_form_that_leaves_a_doubt_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(body)


@pytest.mark.parametrize("cut", range(0, len(FORM) - 3, 7))
def test_a_form_cut_anywhere_is_refused(cut: int) -> None:
    with pytest.raises(InvalidRequest):
        read(FORM[:cut])


def request(body: bytes, model: str, replacements: dict[int, str] | None = None) -> bytes:
    view = read(body)
    return TRANSCRIBE.request(body, view, model=model, replacements=replacements or {}, meter=True).body


class TestPassage:
    def test_the_same_bytes(self) -> None:
        assert request(FORM, "whisper-1") is FORM

    def test_another_model_and_not_a_byte_else(self) -> None:
        assert request(FORM, "a-longer-model") == FORM.replace(b"whisper-1", b"a-longer-model")

    def test_a_model_that_the_path_names(self) -> None:
        body = whole(part("file", SOUND, "a.wav"))
        assert request(body, "whisper-1") == whole(part("model", b"whisper-1"), part("file", SOUND, "a.wav"))

    def test_a_text_that_a_policy_replaced(self) -> None:
        assert read(FORM).texts()[0].text == "héllo"
        assert request(FORM, "whisper-1", {0: "[x]"}) == FORM.replace("héllo".encode(), b"[x]")

    def test_a_replacement_that_would_end_its_part(self) -> None:
        with pytest.raises(InvalidRequest, match="boundary"):
            request(FORM, "whisper-1", {0: "a\r\n--boundary123--"})

    def test_settings_and_files_are_no_texts(self) -> None:
        body = whole(part("model", b"m"), part("size", b"auto"), part("image[]", SOUND, "i.png"), part("new", b"text"))
        view = read(body)
        assert [(item.path, item.text) for item in view.texts()] == [("new", "text")]
        assert view.prompt_bytes == len("mautotext")

    def test_json_where_a_form_is_usual(self) -> None:
        body = b'{"model":"gpt-image-1","prompt":"a cat","images":[{"image_url":"data:image/png;base64,AAAA"}]}'
        view = form(body, [b"application/json"])
        edits = bind(Operation.IMAGE_EDITS, row_of("openai"))
        assert edits.request(body, view, model="gpt-image-1", replacements={}, meter=True).body is body
        renamed = edits.request(body, view, model="other", replacements={}, meter=True).body
        assert renamed == body.replace(b"gpt-image-1", b"other")
