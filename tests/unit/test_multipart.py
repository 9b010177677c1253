"""The multipart parser against every way that chunks, boundaries and header blocks can fall."""

import itertools
import random

import pytest

from pacs.dicomweb import multipart
from pacs.dicomweb.multipart import MAX_HEADER, Parser, PartEnd, PartStart, Single
from pacs.errors import MediaTypeError, RequestError

BOUNDARY = b"-=_a.b:c"


def parts_of(body: bytes, cuts: list[int] | None = None) -> list[tuple[dict[str, str], bytes, str]]:
    """(headers, data, error) of each part, the body fed in pieces cut at `cuts`; without them at once, both ways."""
    parser = Parser(BOUNDARY)
    events: list[multipart.Event | memoryview] = []
    edges = [0, *(cuts or []), len(body)]
    for start, end in itertools.pairwise(edges):
        if start < end:
            events += list(parser.feed(body[start:end]))
    found = parts_in(parser, events)
    if not cuts:
        parser = Parser(BOUNDARY)
        assert parts_in(parser, list(parser.feed_whole(bytearray(b"\r\n" + body)))) == found
    return found


def parts_in(parser: Parser, events: list[multipart.Event | memoryview]) -> list[tuple[dict[str, str], bytes, str]]:
    found: list[tuple[dict[str, str], bytes, str]] = []
    events += list(parser.close())
    inside = False
    for event in events:
        if isinstance(event, PartStart):
            assert not inside
            inside = True
            found.append((dict(event.headers), b"", event.error.message if event.error else ""))
        elif isinstance(event, PartEnd):
            assert inside
            inside = False
            headers, data, error = found[-1]
            found[-1] = (headers, data, error or (event.error.message if event.error else ""))
        else:
            assert inside and event
            headers, data, error = found[-1]
            found[-1] = (headers, data + event, error)
    assert not inside
    assert parser.parts == len(found)
    return found


def body_of(*payloads: bytes, start: bytes = b"", end: bytes = b"--\r\n") -> bytes:
    head = b"\r\nContent-Type: application/dicom\r\n\r\n"
    return start + b"\r\n".join(b"--" + BOUNDARY + head + payload for payload in payloads) + b"\r\n--" + BOUNDARY + end


DICOM = {"content-type": "application/dicom"}
TRICKY = [
    b"plain",
    b"",
    b"\r\n",
    b"\r\n--",
    b"\r\n--" + BOUNDARY[:-1],
    b"x\r\n--" + BOUNDARY + b"X trailing text makes it data\r\n",
    b"\r\n\r\n--" + BOUNDARY + b"-",
    b"\r" * 40,
    b"\r\n--" + BOUNDARY[:4] + b"\r\n--" + BOUNDARY[:4],
]


@pytest.mark.parametrize("start", [b"", b"\r\n", b"This is the preamble.\r\n", b"--\r\n\r\n"])
@pytest.mark.parametrize("end", [b"--", b"--\r\n", b"--epilogue\r\n--" + BOUNDARY + b"\r\n\r\nno part\r\n"])
def test_parts_between_preamble_and_epilogue(start: bytes, end: bytes) -> None:
    body = body_of(b"one", b"two\r\n", start=start, end=end)
    assert parts_of(body) == [(DICOM, b"one", ""), (DICOM, b"two\r\n", "")]


def test_every_single_cut_of_a_tricky_body() -> None:
    body = body_of(*TRICKY, start=b"\r\n")
    expected = [(DICOM, payload, "") for payload in TRICKY]
    assert parts_of(body) == expected
    for cut in range(1, len(body)):
        assert parts_of(body, [cut]) == expected, cut
    assert parts_of(body, list(range(1, len(body)))) == expected


def test_random_cuts_of_binary_parts() -> None:
    chance = random.Random(5)
    payloads = [chance.randbytes(chance.randrange(3000)).replace(b"a", b"\r\n-") for _ in range(8)]
    body = body_of(*payloads)
    for _ in range(200):
        cuts = sorted(chance.sample(range(1, len(body)), chance.randrange(1, 40)))
        assert parts_of(body, cuts) == [(DICOM, payload, "") for payload in payloads]


def test_blanks_after_a_boundary_are_padding() -> None:
    body = b"--" + BOUNDARY + b" \t \r\n\r\nno header\r\n--" + BOUNDARY + b"--"
    for cut in range(1, len(body)):
        assert parts_of(body, [cut]) == [({}, b"no header", "")]


def test_a_part_without_header_and_one_without_anything() -> None:
    delimiter = b"--" + BOUNDARY + b"\r\n"
    body = delimiter + b"\r\ndata\r\n" + delimiter + b"\r\n\r\n" + delimiter + b"A: b\r\n\r\n--" + BOUNDARY + b"--"
    expected = [({}, b"data", ""), ({}, b"", ""), ({"a": "b"}, b"", "")]
    for cut in range(1, len(body)):
        assert parts_of(body, [cut]) == expected, cut


def test_a_cut_off_body_fails_only_its_last_part() -> None:
    body = body_of(b"one", b"two")
    whole = len(body) - len(b"\r\n--" + BOUNDARY + b"--\r\n")
    assert parts_of(body[:whole]) == [(DICOM, b"one", ""), (DICOM, b"two", "the body ends inside this part")]
    headless = body[: body.index(b"Content-Type", 20)]
    assert parts_of(headless)[1] == ({}, b"", "the body ends inside the header of this part")
    assert parts_of(b"") == []
    assert parts_of(b"no boundary at all" * 100) == []


def test_a_header_without_end_fails_only_its_part() -> None:
    delimiter = b"--" + BOUNDARY + b"\r\n"
    good = b"Content-Type: application/dicom\r\n\r\ngood\r\n"
    too_long = b"X: " + b"y" * (2 * MAX_HEADER) + b"\r\n"
    body = delimiter + good + delimiter + too_long + delimiter + b"X: unfinished\r\n" + delimiter + good
    body += b"--" + BOUNDARY + b"--"
    for cuts in ([], [700], list(range(0, len(body), 100))):
        found = parts_of(body, cuts)
        assert [data for _, data, _ in found] == [b"good", b"", b"", b"good"]
        assert [bool(error) for *_, error in found] == [False, True, True, False]
        assert "longer than" in found[1][2]


def test_a_parser_holds_back_little() -> None:
    parser = Parser(BOUNDARY)
    list(parser.feed(b"--" + BOUNDARY + b"\r\n\r\n"))
    for _ in range(100):
        chunk = b"\r\n--" + b"z" * 65_000
        assert sum(len(event) for event in parser.feed(chunk) if isinstance(event, bytes)) >= 65_000
        assert len(parser._held) < 100
    preamble = Parser(BOUNDARY)
    for _ in range(100):
        assert list(preamble.feed(b"q" * 60_000)) == []
        assert len(preamble._held) < 100


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ('multipart/related; type="application/dicom"; boundary="a b"', ("application/dicom", b"a b")),
        ("Multipart/Related;TYPE=Application/Dicom;Boundary=xyz", ("application/dicom", b"xyz")),
        ("multipart/related; boundary=0; start=1", ("", b"0")),
        ('multipart/related; boundary="a\\"b"', ("", b'a"b')),
    ],
)
def test_content_type_is_read(content_type: str, expected: tuple[str, bytes]) -> None:
    assert multipart.boundary_of(content_type) == expected


@pytest.mark.parametrize(
    ("content_type", "error"),
    [
        ("application/dicom", MediaTypeError),
        ("", MediaTypeError),
        ("multipart/form-data; boundary=x", MediaTypeError),
        ("multipart/related", RequestError),
        ("multipart/related; boundary=", RequestError),
        (f"multipart/related; boundary={'x' * 257}", RequestError),
        ('multipart/related; boundary="ü"', RequestError),
        ('multipart/related; boundary="a "', RequestError),
    ],
)
def test_unusable_content_types_are_refused(content_type: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        multipart.boundary_of(content_type)


def test_what_is_written_is_read_again() -> None:
    boundary = multipart.boundary("1a2b3c4d-185291")
    assert boundary == multipart.boundary("1a2b3c4d-185291") != multipart.boundary("1a2b3c4d-185292")
    content_type = "image/jphc; transfer-syntax=1.2.840.10008.1.2.4.202"
    body = b"".join(
        [
            multipart.part_head(boundary, content_type, first=True),
            b"frame 1",
            multipart.part_head(boundary, content_type, first=False),
            b"frame 2",
            multipart.closing(boundary),
        ]
    )
    assert body.startswith(b"--")
    parser = Parser(boundary.encode())
    data = [event for event in [*parser.feed(body), *parser.close()] if isinstance(event, bytes)]
    assert data == [b"frame 1", b"frame 2"]


def test_header_lines_may_be_folded() -> None:
    parser = multipart.Parser(b"b")
    header = b"Content-Type:\r\n application/dicom;\r\n\ttransfer-syntax=1.2"
    events = list(parser.feed(b"--b\r\n" + header + b"\r\n\r\nxy\r\n--b--"))
    assert isinstance(events[0], PartStart)
    assert dict(events[0].headers) == {"content-type": "application/dicom; transfer-syntax=1.2"}


def test_a_body_that_is_one_part() -> None:
    for pieces in ([b"abcdef"], [b"ab", b"", b"cdef"]):
        parser = Single("application/dicom")
        events = [event for piece in pieces for event in parser.feed(piece)]
        start, *data, end = [*events, *parser.close()]
        assert start == PartStart({"content-type": "application/dicom"}) and end == PartEnd()
        assert data == [piece for piece in pieces if piece]
        assert parser.parts == 1
    parser = Single("application/dicom")
    start, view, end = [*parser.feed_whole(bytearray(b"\r\nabcdef")), *parser.close()]
    assert start == PartStart({"content-type": "application/dicom"}) and end == PartEnd()
    assert isinstance(view, memoryview) and bytes(view) == b"abcdef"


def test_nothing_is_no_part() -> None:
    parser = Single("application/dicom")
    assert [*parser.feed(b""), *parser.feed_whole(bytearray(b"\r\n")), *parser.close()] == []
    assert parser.parts == 0
