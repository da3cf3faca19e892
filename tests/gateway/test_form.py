"""multipart/form-data: any bytes arrive equal, or the error says what was expected."""

import base64
import quopri

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candor.contracts.errors import ServiceError
from candor.gateway.transport.rest.form import read_form_data

BOUNDARY = "candor-7f3b1c"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
BOUNDARY_LIKE = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--candor"])).map(b"".join)
TYPE_LINES = (
    "",
    "\r\nContent-Type: text/plain; charset=latin-1",
    "\r\nContent-Type: image/png",
)
DISPOSITIONS = (
    'form-data; name="image"',
    "form-data; name=image",
    'form-data; name="image"; filename=""',
    'form-data; name="image"; filename="a\\"b;c.png"',
    "form-data; name=\"image\"; filename*=UTF-8''caf%C3%A9.png",
    "form-data; name=\"image\"; filename*=UTF-8''%E7%8C%AB.png",
    'form-data; name="image"; filename="\u732b.png"',
    "form-data; filename=x.png; filename*=UTF-8''%e2%82%ac.png; name=\"image\"",
)


def _body(*parts: tuple[str, bytes], boundary: str = BOUNDARY, end: str = "--\r\n") -> bytes:
    out = b"".join(
        f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts
    )
    return out + f"--{boundary}{end}".encode()


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary(max_size=2000)
    | st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--candor"])).map(b"".join),
    disposition=st.sampled_from(DISPOSITIONS),
    type_line=st.sampled_from(
        ["", "\r\nContent-Type: text/plain; charset=latin-1", "\r\nContent-Type: image/png"]
    ),
)
def test_any_bytes_arrive_equal(content: bytes, disposition: str, type_line: str) -> None:
    head = f"Content-Disposition: {disposition}{type_line}"
    request = ('Content-Disposition: form-data; name="request"', b"{}")
    for parts in ([(head, content), request], [request, (head, content)], [(head, content)]):
        assert read_form_data(TYPE, _body(*parts))["image"].content() == content


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=500))
def test_transfer_encodings_are_decoded(content: bytes) -> None:
    head = "Content-Disposition: form-data; name=image\r\nContent-Transfer-Encoding: "
    for name, sent in (
        ("base64", base64.encodebytes(content)),
        ("Quoted-Printable", quopri.encodestring(content.replace(b"\r", b"=0D"))),
        ("binary", content),
    ):
        if name == "Quoted-Printable" and (b"\r" in content or b"=" in content):
            continue
        assert read_form_data(TYPE, _body((head + name, sent)))["image"].content() == content


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "utf-16", "windows-1252"])
def test_the_text_of_a_part_has_the_charset_it_names(charset: str) -> None:
    head = "Content-Disposition: form-data; name=request\r\nContent-Type: text/plain; charset="
    parts = read_form_data(TYPE, _body((head + charset, "café".encode(charset))))
    assert parts["request"].text() == "café"


def test_a_boundary_of_250_characters_is_no_problem() -> None:
    boundary = "b" * 250
    body = _body((f"Content-Disposition: {DISPOSITIONS[0]}", b"\x89PNG\xff"), boundary=boundary)
    parts = read_form_data(f'multipart/form-data; boundary="{boundary}"', body)
    assert parts["image"].content() == b"\x89PNG\xff"


HEAD = f"Content-Disposition: {DISPOSITIONS[0]}"


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (TYPE, _body((HEAD, b"a"), (HEAD, b"b")), "image: expected once, got twice"),
        (TYPE, _body((HEAD, b"a"))[:-30], "expected a last boundary"),
        (TYPE, _body((HEAD, b"a"), end="\r\n"), "expected a last boundary"),
        (TYPE, b"", "expected a last boundary"),
        (TYPE, b"no form at all", "expected parts between boundaries"),
        (
            "multipart/form-data",
            _body((HEAD, b"a")),
            "expected 1 to 256 characters, got none",
        ),
        (f"multipart/form-data; boundary={'b' * 300}", b"", "got 300 characters"),
        (TYPE, _body(("Content-Type: image/png", b"a")), "expected Content-Disposition: form-data"),
        (TYPE, _body(("Content-Disposition: attachment; name=image", b"a")), "form-data"),
        (TYPE, _body(*[(HEAD, b"a")] * 9), "expected at most 8 parts"),
        (TYPE, _body((f"{HEAD}\r\n{HEAD}", b"a")), "content-disposition: expected once in a part"),
    ],
)
def test_other_forms_are_rejected_clearly(content_type: str, body: bytes, expected: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read_form_data(content_type, body)
    assert expected in caught.value.message


@pytest.mark.parametrize("encoding", ["gzip", "base64"])
def test_an_unknown_or_broken_transfer_encoding_is_rejected(encoding: str) -> None:
    part = read_form_data(
        TYPE, _body((f"{HEAD}\r\nContent-Transfer-Encoding: {encoding}", b"\x00*"))
    )["image"]
    with pytest.raises(ServiceError, match="Content-Transfer-Encoding"):
        part.content()


@pytest.mark.parametrize(
    "parameters",
    [
        'name="\u46e4"',
        "name*=utf-8''%E4%A3%A4",
        "name*=\x00''image",
        "name*0=im; name*1=age",
        "name*0=im; name*=age",
        "name*9999999999999999999999=image",
        'name="image',
        "name",
    ],
)
def test_odd_parameters_are_read_or_refused(parameters: str) -> None:
    body = _body((f"Content-Disposition: form-data; {parameters}", b"x"))
    refused = None
    try:
        (part,) = read_form_data(TYPE, body).values()
    except ServiceError as err:
        refused = err
    if refused is None:
        assert part.content() == b"x"
    else:
        assert "Content-Disposition" in refused.message or "header" in refused.message
