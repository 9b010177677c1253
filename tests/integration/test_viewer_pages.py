"""The viewer over HTTP: its files unchanged, headers, compression, nothing beside them. A small stand-in for OHIF."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator

import pytest
import zstandard

from pacs import viewer
from tests.conftest import StartServer, _server_factory
from tests.integration.exchange import Client

SCRIPT = b"let a = 1;\n" * 60_000
FILES = {
    "index.html": b'<!doctype html><script src="/app.bundle.0123456789abcdef.js"></script>',
    "app.bundle.0123456789abcdef.js": SCRIPT,
    "app-config.js": b"window.config = 'of npm';",
    "codec.wasm": b"\0asm" + bytes(range(256)),
    "assets/icon.png": b"\x89PNG",
}


@pytest.fixture(scope="module")
def start() -> Iterator[StartServer]:
    yield from _server_factory()


@pytest.fixture(scope="module")
def viewer_client(start: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server with a small viewer in the place and form of the real one."""
    folder = tmp_path_factory.mktemp("viewer")
    place = folder / f"ohif-{viewer.VERSION}"
    listed = {}
    for path, data in FILES.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(data)
        listed[path] = {"size": len(data), "digest": hashlib.blake2b(data, digest_size=12).hexdigest(), "encodings": {}}
    for coding, suffix, copy in (
        ("gzip", ".gz", gzip.compress(SCRIPT)), ("zstd", ".zst", zstandard.compress(SCRIPT))
    ):  # fmt: skip
        (place / ("app.bundle.0123456789abcdef.js" + suffix)).write_bytes(copy)
        listed["app.bundle.0123456789abcdef.js"]["encodings"][coding] = len(copy)  # type: ignore[index]
    (place / "viewer.json").write_text(json.dumps({"format": 1, "integrity": viewer.INTEGRITY, "files": listed}))
    (place / "unlisted.js").write_text("never")
    (folder / "secret.js").write_text("never")
    server = start(tmp_path_factory.mktemp("archive") / "a", workers=1, env={"PACS_VIEWER": str(folder)})
    client = Client(server)
    yield client
    client.close()


@pytest.mark.parametrize("path", ["//viewer", "//viewer/", "//viewer/viewer?StudyInstanceUIDs=1.2", "//viewer/local/"])
def test_every_address_inside_is_the_shell(viewer_client: Client, path: str) -> None:
    reply = viewer_client.get(path)
    assert (reply.status, reply.body) == (200, FILES["index.html"])
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["cross-origin-opener-policy"] == "same-origin"
    assert reply.headers["cross-origin-embedder-policy"] == "require-corp"
    assert reply.headers["cache-control"] == "no-cache"
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert viewer_client.get(path, If_None_Match=reply.headers["etag"]).status == 304
    assert viewer_client.request("HEAD", path).status == 200
    assert viewer_client.request("POST", path).status == 405


@pytest.mark.parametrize("prefix", ["//", "//viewer/"])
def test_files(viewer_client: Client, prefix: str) -> None:
    types = {"app.bundle.0123456789abcdef.js": "text/javascript; charset=utf-8", "codec.wasm": "application/wasm"}
    for name, content_type in {**types, "assets/icon.png": "image/png"}.items():
        reply = viewer_client.get(prefix + name)
        assert (reply.status, reply.body) == (200, FILES[name])
        assert reply.headers["content-type"] == content_type
        assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
        lasting = "immutable" in reply.headers["cache-control"]
        assert lasting == (name == "app.bundle.0123456789abcdef.js")
    script = prefix + "app.bundle.0123456789abcdef.js"
    part = viewer_client.get(script, Range="bytes=300000-300009")
    assert (part.status, part.body) == (206, SCRIPT[300_000:300_010])
    assert viewer_client.get(script).headers["cross-origin-embedder-policy"] == "require-corp"


def test_compressed_copies(viewer_client: Client) -> None:
    path = "//app.bundle.0123456789abcdef.js"
    tags = set()
    for accepted, coding in (("gzip, deflate, br, zstd", "zstd"), ("gzip", "gzip"), ("br", ""), ("", "")):
        reply = viewer_client.get(path, Accept_Encoding=accepted)
        assert reply.headers.get("content-encoding", "") == coding
        assert "Accept-Encoding" in reply.headers["vary"]
        undo = {"zstd": zstandard.decompress, "gzip": gzip.decompress, "": bytes}[coding]
        assert undo(reply.body) == SCRIPT
        tags.add(reply.headers["etag"])
    assert len(tags) == 3
    assert "content-encoding" not in viewer_client.get("//codec.wasm", Accept_Encoding="gzip, zstd").headers


def test_the_configuration_is_ours(viewer_client: Client) -> None:
    for path in ("//app-config.js", "//viewer/app-config.js"):
        reply = viewer_client.get(path)
        text = reply.body.decode()
        assert reply.status == 200 and "window.config" in text and "of npm" not in text
        assert 'routerBasename: "/viewer"' in text and "http:" not in text
        assert viewer_client.get(path, If_None_Match=reply.headers["etag"]).status == 304


@pytest.mark.parametrize(
    "path",
    [
        "//viewer/../secret.js", "//viewer/../../secret.js", "//viewer/%2e%2e/secret.js", "//viewer/..%2fsecret.js",
        "//../secret.js", "//viewer/unlisted.js", "//unlisted.js", "//viewer.json", "//viewer/viewer.json",
        "//viewer/app.bundle.0123456789abcdef.js.gz.js", "//viewer//etc/passwd.js", "//viewer/missing.wasm",
    ],
)  # fmt: skip
def test_nothing_else_is_found(viewer_client: Client, path: str) -> None:
    reply = viewer_client.get(path)
    assert reply.status == 404
    assert b"never" not in reply.body


def test_the_archive_and_its_page_are_where_they_were(viewer_client: Client, client: Client) -> None:
    page = viewer_client.get("//")
    assert b"<title>pacs</title>" in page.body and b'data-viewer="/viewer"' in page.body
    without = client.get("//")
    assert b"data-viewer" not in without.body, "no link leads nowhere"
    assert page.headers["etag"] != without.headers["etag"]
    assert viewer_client.get("/studies").json == []


def test_without_a_viewer_it_says_how_to_get_one(client: Client) -> None:
    reply = client.get("//viewer")
    assert reply.status == 404
    assert reply.json["code"] == "VWR-01" and "pacs viewer" in reply.json["message"]
    assert client.get("//app-config.js").status == 404
