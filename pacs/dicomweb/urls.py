"""The address of this server as its clients see it: for `RetrieveURL`, `BulkDataURI` and `Location`."""

from __future__ import annotations

import ipaddress
import re

from aiohttp.web import BaseRequest

from pacs.dicomweb.target import BASE
from pacs.errors import RequestError
from pacs.settings import Settings

_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_FORWARDED = re.compile(r'(?:^|;)\s*(proto|host)\s*=\s*("[^"]*"|[^;,\s]*)', re.IGNORECASE)


def base(request: BaseRequest, settings: Settings) -> str:
    """The DICOMweb root, without a slash at its end: the configured one, or what a trusted proxy or Host says.

    Raises RequestError for a Host that could not be part of a URL.
    """
    if settings.public_url:
        return settings.public_url.rstrip("/")
    scheme, host, prefix = "http", request.headers.get("Host", ""), ""
    if settings.trusted_proxies and _trusted(request.remote, settings.trusted_proxies):
        scheme, host, prefix = _forwarded(request, scheme, host)
    if ":" not in host:
        host = _with_port(request, host)
    if not _HOST.fullmatch(host):
        raise RequestError("Host is not a host name")
    return f"{scheme}://{host}{prefix}{BASE}"


def _with_port(request: BaseRequest, host: str) -> str:
    """Some clients (dicomweb-client) leave the port out of Host. Where the name is that of this very socket it is
    known; any other name may be that of a proxy on the default port."""
    local = request.get_extra_info("sockname")
    if not isinstance(local, tuple):
        return host or "localhost"
    if host in ("", local[0]) or (host.lower() == "localhost" and local[0].startswith("127.")):
        return f"{host or local[0]}:{local[1]}"
    return host


def _trusted(remote: str | None, proxies: tuple[str, ...]) -> bool:
    if remote is None:
        return False
    for proxy in proxies:
        try:
            if ipaddress.ip_address(remote) in ipaddress.ip_network(proxy, strict=False):
                return True
        except ValueError:
            if proxy == remote:
                return True
    return False


def _forwarded(request: BaseRequest, scheme: str, host: str) -> tuple[str, str, str]:
    """RFC 7239 `Forwarded`, else the X-Forwarded-* it replaced; the last element is the one the proxy wrote."""
    headers = request.headers
    prefix = ""
    forwarded = headers.get("Forwarded")
    if forwarded is not None:
        for name, value in _FORWARDED.findall(forwarded.rpartition(",")[2]):
            if name.lower() == "proto":
                scheme = value.strip('"')
            else:
                host = value.strip('"')
    else:
        scheme = headers.get("X-Forwarded-Proto", scheme).rpartition(",")[2].strip()
        host = headers.get("X-Forwarded-Host", host).rpartition(",")[2].strip()
        prefix = headers.get("X-Forwarded-Prefix", "").strip().rstrip("/")
    if scheme.lower() not in ("http", "https") or not _PREFIX.fullmatch(prefix):
        raise RequestError("the proxy's headers do not name a URL")
    return scheme.lower(), host, prefix
