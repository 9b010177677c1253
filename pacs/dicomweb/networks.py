"""Which network a client is in: a name for metrics and logs, of which there is only a bounded number."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from pacs.errors import SettingsError
from pacs.settings import Settings

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: Final = "loopback"
PRIVATE: Final = "private"
OTHER: Final = "other"
UNKNOWN: Final = "unknown"

_MOST_FOUND: Final = 64
"""Public networks that get a name of their own; those that come later are `other`."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_FOR: Final = re.compile(r'(?:^|;)\s*for\s*=\s*("[^"]*"|[^;,\s]*)', re.IGNORECASE)


def parse_networks(entries: tuple[str, ...]) -> tuple[tuple[str, _Network], ...]:
    """PACS_NETWORKS, the longest prefix first. Raises SettingsError."""
    found = []
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            raise SettingsError(f"PACS_NETWORKS: {entry[:80]!r} is not of the form name=10.1.0.0/16")
        found.append((name.strip(), _network(text.strip(), "PACS_NETWORKS")))
    return tuple(sorted(found, key=lambda item: -item[1].prefixlen))


def parse_allowed(entries: tuple[str, ...]) -> tuple[str | _Network, ...]:
    """PACS_METRICS_FROM: `loopback`, `private`, `all` or networks. Raises SettingsError."""
    return tuple(
        entry if entry in (LOOPBACK, PRIVATE, "all") else _network(entry, "PACS_METRICS_FROM") for entry in entries
    )


def _network(text: str, setting: str) -> _Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise SettingsError(f"{setting}: {text[:80]!r} is not a network such as 10.1.0.0/16") from None


class Clients:
    """Tells the network of a client: one of PACS_NETWORKS, else `loopback`, `private`, the /16 of a public IPv4
    address or the /32 of an IPv6 one, and `other` when there are too many of these."""

    def __init__(self, settings: Settings) -> None:
        self._named = parse_networks(settings.networks)
        self._allowed = parse_allowed(settings.metrics_from)
        self._proxies = tuple(_proxy(entry) for entry in settings.trusted_proxies)
        self._found: set[str] = set()
        self.behind_proxies = bool(self._proxies)

    def network(self, address: str) -> str:
        """The name of the network of an address, `unknown` for what is none."""
        parsed = _address(address)
        if parsed is None:
            return UNKNOWN
        for name, network in self._named:
            if parsed.version == network.version and parsed in network:
                return name
        if parsed.is_loopback:
            return LOOPBACK
        if not parsed.is_global:
            return PRIVATE
        prefix = 16 if parsed.version == 4 else 32
        found = str(ipaddress.ip_network((parsed, prefix), strict=False))
        if found not in self._found:
            if len(self._found) >= _MOST_FOUND:
                return OTHER
            self._found.add(found)
        return found

    def address(self, request: BaseRequest) -> tuple[str, bool]:
        """(address of the client, whether a proxy stands between). A proxy is believed that the settings trust."""
        remote = request.remote or ""
        if not self._proxies or not self.trusts(remote):
            return remote, False
        forwarded = request.headers.get("Forwarded")
        if forwarded is not None:
            match = _FOR.search(forwarded.rpartition(",")[2])
            return (_bare(match[1]) if match else ""), True
        named = request.headers.get("X-Forwarded-For")
        return (_bare(named.rpartition(",")[2]) if named is not None else remote), True

    def trusts(self, remote: str) -> bool:
        """Whether this is the address of a trusted proxy."""
        return _trusted(remote, self._proxies)

    def may_see_metrics(self, request: BaseRequest) -> bool:
        """Whether the client is in PACS_METRICS_FROM. Whoever comes through a proxy that nobody named is not: its
        address would be that of the proxy, often loopback."""
        address, proxied = self.address(request)
        headers = request.headers
        if not proxied and ("X-Forwarded-For" in headers or "Forwarded" in headers):
            return "all" in self._allowed
        parsed = _address(address)
        for allowed in self._allowed:
            if allowed == "all":
                return True
            if parsed is None:
                continue
            if isinstance(allowed, str):
                if parsed.is_loopback if allowed == LOOPBACK else _is_private(parsed):
                    return True
            elif parsed.version == allowed.version and parsed in allowed:
                return True
        return False


def _is_private(address: _Address) -> bool:
    return not address.is_global and not address.is_loopback and not address.is_multicast


@lru_cache(maxsize=1024)
def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped if mapped is not None else address


def _proxy(entry: str) -> str | _Network:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return entry


@lru_cache(maxsize=1024)
def _trusted(remote: str, proxies: tuple[str | _Network, ...]) -> bool:
    address = _address(remote)
    return any(
        proxy == remote if isinstance(proxy, str) else address is not None and address in proxy for proxy in proxies
    )


def _bare(text: str) -> str:
    """An address without quotes, brackets and port. RFC 7239 6"""
    text = text.strip().strip('"')
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
