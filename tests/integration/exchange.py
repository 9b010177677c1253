"""Small tools of the HTTP tests: requests whose every header is seen, and multipart read independently of ours."""

from __future__ import annotations

import email
import email.policy
import http.client
import io
import json
from dataclasses import dataclass
from typing import Any

import pydicom

from tests.conftest import Server


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def parts(self) -> list[tuple[dict[str, str], bytes]]:
        """(headers, body) of each part, read by the standard library."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = email.message_from_bytes(head + self.body, policy=email.policy.HTTP)
        assert message.is_multipart()
        boundary = message.get_boundary()
        assert boundary is not None
        # The standard library reads headers well, but takes line ends of binary parts for its own.
        pieces = self.body.split(b"--" + boundary.encode())
        assert pieces[0] == b"" and pieces[-1] == b"--\r\n"
        found = []
        for piece in pieces[1:-1]:
            header, empty, data = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            assert empty and data.endswith(b"\r\n")
            lines = [line.partition(": ") for line in header.decode().split("\r\n")]
            found.append(({name: value for name, _, value in lines}, data[:-2]))
        return found


class Client:
    """One connection that is kept; `get("/studies")` is relative to the DICOMweb root."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connection: http.client.HTTPConnection = server.connect()

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None) -> Reply:
        path = path if path.startswith(("/dicomweb", "//")) else "/dicomweb" + path
        self.connection.request(method, path.replace("//", "/", 1), body, headers or {})
        response = self.connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())

    def get(self, path: str, accept: str | None = None, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("GET", path, named | ({"Accept": accept} if accept is not None else {}))

    def store(self, *files: bytes, check: bool = True) -> Reply:
        boundary = "client-boundary"
        body = b"".join(
            b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (boundary.encode(), file) for file in files
        )
        content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
        reply = self.request("POST", "/studies", {"Content-Type": content_type}, body + f"--{boundary}--".encode())
        assert not check or reply.status in (200, 202), reply.body
        return reply

    def close(self) -> None:
        self.connection.close()


@dataclass
class Stored:
    """A file that was uploaded, and what pydicom reads in it."""

    file: bytes

    def __post_init__(self) -> None:
        self.data = pydicom.dcmread(io.BytesIO(self.file), force=True)
        self.study = f"/studies/{self.data.get('StudyInstanceUID')}"
        self.series = f"{self.study}/series/{self.data.get('SeriesInstanceUID')}"
        self.path = f"{self.series}/instances/{self.data.get('SOPInstanceUID')}"
