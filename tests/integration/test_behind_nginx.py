"""docker/nginx.conf, run by a real nginx in front of a real server: TLS, HTTP/2, passwords, uploads, forwarding."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacs.client import Client, files, upload
from pacs.errors import UnreachableError, UploadError
from tests.conftest import ROOT, CtSlices, Server
from tests.durability.clients import wait_for
from tests.integration.exchange import Stored

pytestmark = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("openssl")), reason="there is no nginx, or no openssl"
)
AUTHORIZATION = {"Authorization": "Basic " + base64.b64encode(b"reader:secret").decode()}


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int, Path]]:
    """(server, port of nginx, access log)"""
    folder = tmp_path_factory.mktemp("nginx")
    log = folder / "access.log"
    env = {"PACS_TRUSTED_PROXIES": "127.0.0.1", "PACS_ACCESS_LOG": str(log)}
    with contextlib.ExitStack() as running:
        server = Server(folder / "archive", workers=1, env=env, args=())
        running.callback(server.stop)
        # Opened here and handed on, as nginx does to the one that takes its place: no other program gets the port.
        listener = running.enter_context(socket.create_server(("127.0.0.1", 0), backlog=511))
        port = int(listener.getsockname()[1])
        configuration = configured(folder, server, port)
        tested = subprocess.run(["nginx", "-t", "-c", configuration], capture_output=True, text=True, check=False)
        assert tested.returncode == 0, tested.stderr
        assert "warn" not in tested.stderr, tested.stderr
        nginx = running.enter_context(subprocess.Popen(
            ["nginx", "-c", configuration, "-g", "daemon off;"], stderr=subprocess.DEVNULL,
            pass_fds=(listener.fileno(),), env={**os.environ, "NGINX": f"{listener.fileno()};"},
        ))  # fmt: skip
        running.callback(nginx.terminate)
        yield server, port, log


def configured(folder: Path, server: Server, port: int) -> Path:
    """docker/nginx.conf for a test's folder, server and port, with a password and a certificate."""
    secrets = folder / "secrets"
    secrets.mkdir()
    key, certificate = secrets / "key.pem", secrets / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    password = subprocess.run(["openssl", "passwd", "-6", "secret"], check=True, capture_output=True, text=True).stdout
    (secrets / "users").write_text(f"reader:{password.strip()}\n")
    text = (ROOT / "docker" / "nginx.conf").read_text()
    changes = (
        ("/tmp/", f"{folder}/"), ("server pacs:8080;", f"server {server.address};"),
        ("listen 8443 ssl", f"listen 127.0.0.1:{port} ssl"), ("        listen [::]:8443 ssl http2;\n", ""),
        ("/etc/nginx/secrets", str(secrets)),
    )  # fmt: skip
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    # Where its workers would change to an account that may not read the test's folder.
    configuration = folder / "nginx.conf"
    user = "user root;\n" if os.getuid() == 0 else ""
    configuration.write_text(user + text)
    return configuration


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder / "secrets" / "certificate.pem")


def ask(
    proxied: tuple[Server, int, Path], method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    _, port, log = proxied
    connection = http.client.HTTPSConnection("localhost", port, context=trusting(log.parent), timeout=120)
    with contextlib.closing(connection):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def test_a_study_goes_in_and_out_through_it(proxied: tuple[Server, int, Path], ct_slices: CtSlices) -> None:
    file = ct_slices(1, rows=512)[0]
    stored = Stored(file)
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--b--\r\n"
    content = 'multipart/related; type="application/dicom"; boundary=b'
    status, _, answer = ask(proxied, "POST", "/dicomweb/studies", body, Content_Type=content, **AUTHORIZATION)
    assert status == 200, answer
    port = proxied[1]
    url = json.loads(answer)["00081190"]["Value"][0]
    assert url.startswith(f"https://localhost:{port}/dicomweb/studies/"), "the address that the client used"
    status, headers, body = ask(
        proxied, "GET", f"/dicomweb{stored.path}", Accept="application/dicom; transfer-syntax=*", **AUTHORIZATION
    )
    assert status == 200 and body == file
    accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    whole = ask(proxied, "GET", f"/dicomweb{stored.path}/frames/1", Accept=accept, **AUTHORIZATION)
    part = ask(
        proxied, "GET", f"/dicomweb{stored.path}/frames/1", Accept=accept, Range="bytes=100-199", **AUTHORIZATION
    )
    assert whole[0] == 200 and part[0] == 206 and part[2] == whole[2][100:200]
    assert whole[1]["content-length"] == str(len(whole[2])) and "content-encoding" not in whole[1]
    assert "max-age" in headers["strict-transport-security"]


def test_nobody_comes_in_without_a_password_but_a_preflight(proxied: tuple[Server, int, Path]) -> None:
    assert ask(proxied, "GET", "/dicomweb/studies")[0] == 401
    assert ask(proxied, "GET", "/")[0] == 401
    assert ask(proxied, "GET", "/dicomweb/studies", **AUTHORIZATION)[0] == 200
    origin = {"Origin": "http://localhost:3000", "Access_Control_Request_Method": "GET"}
    status, headers, _ = ask(proxied, "OPTIONS", "/dicomweb/studies", **origin)
    assert status == 204 and headers["access-control-allow-origin"] == "http://localhost:3000"


def test_a_certificate_that_is_not_trusted_is_called_that(proxied: tuple[Server, int, Path], tmp_path: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    target = upload.Target(f"https://localhost:{proxied[1]}/dicomweb")
    with pytest.raises(
        UploadError, match=r"its certificate is not trusted: self-signed certificate; SSL_CERT_FILE may"
    ):
        upload.store(files.walk([tmp_path]), target, lambda _: None)
    client = Client(target.url)
    with client, pytest.raises(UnreachableError, match=r"its certificate is not trusted: self-signed"):
        list(client.search("studies", {}))


def test_what_is_the_watchers_stays_inside(proxied: tuple[Server, int, Path]) -> None:
    for path in ("/metrics", "/readyz", "/healthz"):
        assert ask(proxied, "GET", path, **AUTHORIZATION)[0] == 404


def test_http_2_is_offered(proxied: tuple[Server, int, Path]) -> None:
    _, port, log = proxied
    context = trusting(log.parent)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"


def test_the_server_sees_the_client_and_the_id_of_the_request(proxied: tuple[Server, int, Path]) -> None:
    log = proxied[2]
    spoofed = {"X_Forwarded_For": "8.8.8.8", "X_Request_ID": "abcdefabcdef", "Forwarded": "for=8.8.8.8"}
    assert ask(proxied, "GET", "/dicomweb/instances?limit=1", **spoofed, **AUTHORIZATION)[0] == 200

    def mine() -> list[dict[str, Any]]:
        """Lines that are there whole, of what nobody else asks for."""
        whole = [text for text in log.read_text().splitlines(keepends=True) if text.endswith("\n")]
        return [line for line in map(json.loads, whole) if line["route"] == "/dicomweb/instances"]

    wait_for(lambda: log.exists() and bool(mine()))
    (line,) = mine()
    assert line["network"] == "loopback" and len(line["request"]) == 32, "nginx says who, not the client"
