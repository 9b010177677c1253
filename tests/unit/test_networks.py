"""Names of client networks: bounded, and only what trusted proxies say is believed."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from pacs.dicomweb.networks import Clients
from pacs.errors import SettingsError
from pacs.settings import Settings


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.1.2.3", "hospital-a"), ("10.1.9.3", "radiology"), ("2001:db8::1", "v6"), ("127.0.0.1", "loopback"),
        ("::1", "loopback"), ("192.168.3.4", "private"), ("fe80::1%eth0", "private"), ("fd00::1", "private"),
        ("8.8.4.4", "8.8.0.0/16"), ("::ffff:8.8.1.1", "8.8.0.0/16"), ("2a00:1450:4001::1", "2a00:1450::/32"),
        ("", "unknown"), ("a name", "unknown"),
    ],
)  # fmt: skip
def test_the_longest_named_network_then_a_class(address: str, name: str) -> None:
    networks = ("hospital-a=10.1.0.0/16", "radiology=10.1.9.0/24", "v6=2001:db8::/32")
    assert Clients(Settings(networks=networks)).network(address) == name


def test_there_is_no_end_of_addresses_but_of_names() -> None:
    clients = Clients(Settings())
    names = {clients.network(f"{a}.{b}.1.1") for a in (11, 12, 13, 14, 15) for b in range(256)}
    assert len(names) == 65 and "other" in names
    assert clients.network("11.0.9.9") == "11.0.0.0/16", "those that were first keep their names"


@pytest.mark.parametrize("entry", ["10.0.0.0/8", "=10.0.0.0/8", "a b=10.0.0.0/8", "a=10.0.0.0/40", 'x"=10.0.0.0/8'])
def test_malformed_networks_stop_the_start(entry: str) -> None:
    with pytest.raises(SettingsError, match="PACS_NETWORKS"):
        Clients(Settings(networks=(entry,)))
    with pytest.raises(SettingsError, match="PACS_METRICS_FROM"):
        Clients(Settings(metrics_from=("lan",)))


@pytest.mark.parametrize(
    ("headers", "proxies", "expected"),
    [
        ({"X-Forwarded-For": "9.9.9.9"}, (), ("10.1.2.3", False)),
        ({"X-Forwarded-For": "9.9.9.9"}, ("10.7.0.0/16",), ("10.1.2.3", False)),
        ({"X-Forwarded-For": "6.6.6.6, 9.9.9.9"}, ("10.1.0.0/16",), ("9.9.9.9", True)),
        ({"Forwarded": 'for=6.6.6.6, for="[2001:db8::5]:99";proto=https'}, ("10.1.2.3",), ("2001:db8::5", True)),
        ({"Forwarded": "proto=https"}, ("10.1.2.3",), ("", True)),
        ({}, ("10.1.2.3",), ("10.1.2.3", True)),
    ],
)
def test_the_address_of_a_client(
    headers: dict[str, str], proxies: tuple[str, ...], expected: tuple[str, bool]
) -> None:
    request = make_mocked_request("GET", "/", headers=headers).clone(remote="10.1.2.3")
    assert Clients(Settings(trusted_proxies=proxies)).address(request) == expected


@pytest.mark.parametrize(
    ("remote", "headers", "settings", "allowed"),
    [
        ("127.0.0.1", {}, {}, True),
        ("10.1.2.3", {}, {}, True),
        ("8.8.8.8", {}, {}, False),
        ("8.8.8.8", {}, {"metrics_from": ("8.8.8.0/24",)}, True),
        ("10.1.2.3", {}, {"metrics_from": ("loopback",)}, False),
        ("8.8.8.8", {}, {"metrics_from": ("all",)}, True),
        ("127.0.0.1", {}, {"metrics_from": ()}, False),
        # A proxy on this machine that nobody named: everybody's address is its own.
        ("127.0.0.1", {"X-Forwarded-For": "8.8.8.8"}, {}, False),
        ("127.0.0.1", {"Forwarded": "for=8.8.8.8"}, {}, False),
        ("127.0.0.1", {"X-Forwarded-For": "8.8.8.8"}, {"trusted_proxies": ("127.0.0.1",)}, False),
        ("127.0.0.1", {"X-Forwarded-For": "10.0.0.8"}, {"trusted_proxies": ("127.0.0.1",)}, True),
        ("127.0.0.1", {"X-Forwarded-For": "not an address"}, {"trusted_proxies": ("127.0.0.1",)}, False),
    ],
)  # fmt: skip
def test_who_may_see_metrics(
    remote: str, headers: dict[str, str], settings: dict[str, tuple[str, ...]], allowed: bool
) -> None:
    request = make_mocked_request("GET", "/metrics", headers=headers).clone(remote=remote)
    assert Clients(Settings(**settings)).may_see_metrics(request) is allowed  # type: ignore[arg-type]
