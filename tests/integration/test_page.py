"""The built-in page: what is served. What it does in a browser: tests/browser/test_page.py."""

from __future__ import annotations

import gzip
import re
from importlib import resources

from tests.integration.exchange import Client

PAGE = resources.files("pacs.dicomweb") / "page"


def test_the_page_and_its_parts(client: Client) -> None:
    reply = client.get("//")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert client.get("//", If_None_Match=reply.headers["etag"]).status == 304
    named = set(re.findall(r'(?:src|href)="(/page/[^"]+)"', reply.body.decode()))
    assert {name.rpartition("/")[2] for name in named} == {file.name for file in PAGE.iterdir()} - {"index.html"}
    for name in named:
        found = client.get("/" + name)
        assert found.status == 200 and found.body == (PAGE / name.rpartition("/")[2]).read_bytes()
        assert "immutable" in found.headers["cache-control"] and "immutable" not in reply.headers["cache-control"]
        packed = client.get("/" + name, Accept_Encoding="gzip")
        assert gzip.decompress(packed.body) == found.body and packed.headers["etag"] != found.headers["etag"]
    assert client.request("HEAD", "//").status == 200
    assert client.request("POST", "//").status == 405
    assert client.get("//page/../app.py").status == 404
    assert client.get("//favicon.ico").status == 404


def test_the_page_asks_nobody_else_and_writes_no_markup() -> None:
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8")
        others = [url for url in re.findall(r"https?://[^\"'\s)]+", text) if "www.w3.org" not in url]
        assert not others
        markup = r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|javascript:|\bon\w+=\""
        assert not re.search(markup, text)
    assert "style=" not in (PAGE / "index.html").read_text(encoding="utf-8")
