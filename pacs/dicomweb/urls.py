"""The address of this server as its clients see it: for `RetrieveURL`, `BulkDataURI` and `Location`."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp.web import BaseRequest

from pacs.dicomweb.target import BASE
from pacs.errors import HostError, RequestError
from pacs.settings import Settings

_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
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


def name_is_ours(host: str, settings: Settings) -> bool:
    """Whether `host`, with or without a port, is an address or a name that was given to this server."""
    # Not of all settings: to hash them takes longer than the rest.
    return _is_one_of(host, settings.allowed_hosts, settings.public_url)


@lru_cache(maxsize=256)
def _is_one_of(host: str, allowed_hosts: tuple[str, ...], public_url: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.rstrip(".").lower()
    if "." not in name or name.startswith("[") or name.endswith(".localhost"):
        return True
    if name in (allowed.lower() for allowed in allowed_hosts):
        return True
    if name == (urlsplit(public_url).hostname or ""):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_host(request: BaseRequest, settings: Settings) -> None:
    """Raises HostError for a domain name that nobody gave to this server.

    A server on loopback has no authentication because nobody else can connect to it; but a page that a browser shows
    can, once the page's own name resolves to 127.0.0.1 (DNS rebinding). Its requests carry that name.
    """
    host = request.headers.get("Host", "")
    if name_is_ours(host, settings):
        return
    local = request.get_extra_info("sockname")
    if not isinstance(local, tuple) or not ipaddress.ip_address(local[0]).is_loopback:
        return
    if settings.trusted_proxies and _trusted(request.remote, settings.trusted_proxies):
        return
    raise HostError(f"{host[:100]!r} is not a name of this server: PACS_ALLOWED_HOSTS gives it one")


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
