"""The one table of settings.

Each can be given as an environment variable `PACS_<NAME>`; an unknown one stops the start.

`docs/settings.md` has a heading for every row (tested).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pacs.errors import SettingsError

_OTHER_PREFIXED = {"PACS_SHARED_DATA", "PACS_ZARR_PYTHON"}
"""Read by the tests, not settings of the server."""


_LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


def _setting(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings with their defaults. Sizes are in bytes, durations in seconds."""

    public_url: str = _setting(
        "", "Base URL that clients see, e.g. https://pacs.example/dicomweb; else derived from the request.")
    cors_origins: tuple[str, ...] = _setting(
        ("http://localhost:*", "http://127.0.0.1:*"),
        "Origins whose pages may read from here, separated by commas; * stands for any text.",
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (), "Names beside localhost, addresses and that of PUBLIC_URL under which a loopback server is asked."
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (), "Addresses whose Forwarded and X-Forwarded-* headers are believed, separated by commas."
    )
    ingest_memory: int = _setting(300 << 20, "Memory that uploads in work may hold, in each worker.")
    spool_threshold: int = _setting(8 << 20, "An uploaded part longer than this is spooled to disk.")
    max_part_bytes: int = _setting(16 << 30, "The longest part that an upload may have.")
    metadata_cache: int = _setting(64 << 20, "Memory for ready-made series metadata, in each worker.")
    frame_cache: int = _setting(96 << 20, "Memory for frames decoded or transcoded lately, in each worker.")
    rendition_cache: int = _setting(
        4 << 30, "Disk for transcoded frames, inside the archive, shared by the workers; may be deleted at any time."
    )
    decode_memory: int = _setting(
        1 << 30, "Memory that decoding and encoding frames may take together, in each worker; a larger one goes alone."
    )
    outgoing_memory: int = _setting(
        512 << 20,
        "Memory that decoded images and other large answers may hold until their readers have taken them, in each "
        "worker; more of them wait, and are told to come back after 10 seconds. A reader that takes nothing for a "
        "minute goes when others wait.",
    )
    receiving: float = _setting(30.0, "How long after its newest instance a series is said to be still received.")
    viewer: str = _setting(
        "", "Folder that `pacs viewer` fetched the viewer to, then served at /viewer; `pacs serve --viewer` sets it."
    )
    write_buffer: int = _setting(128 << 10, "Bytes kept for a slow reader before its response waits.")
    query_limit: int = _setting(5_000, "Most matches that one search answers; larger answers are paged.")
    shutdown_grace: float = _setting(10.0, "How long running requests may go on after SIGTERM.")
    least_free: int = _setting(
        1 << 30, "Free bytes on the archive's disk below which /readyz says: not ready, and no long part is spooled."
    )
    networks: tuple[str, ...] = _setting(
        (), "Names of client networks for metrics and the access log, name=10.1.0.0/16, separated by commas."
    )
    metrics_from: tuple[str, ...] = _setting(
        ("loopback", "private"),
        "Who may see /metrics: loopback, private, all, or networks such as 10.1.0.0/16, separated by commas.",
    )
    access_log: str = _setting(
        "", "File that gets a line of JSON for each request, without patient data; - is standard output, empty none."
    )
    log_level: str = _setting("warning", "What is logged on standard error: debug, info, warning, error or critical.")
    codec_threads: int = _setting(0, "Threads for encoding and decoding, in each worker; 0: one per core.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Defaults overridden by `PACS_*` variables. Raises SettingsError for an unknown or unreadable one."""
        environment = os.environ if environment is None else environment
        known = {f"PACS_{entry.name.upper()}": entry for entry in fields(cls)}
        chosen: dict[str, Any] = {}
        for variable, text in environment.items():
            if not variable.startswith("PACS_") or variable in _OTHER_PREFIXED:
                continue
            if variable not in known:
                raise SettingsError(f"there is no setting {variable}; known are {', '.join(sorted(known))}")
            chosen[known[variable].name] = _read(variable, text, known[variable].default)
        return replace(cls(), **chosen)


def _read(variable: str, text: str, default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(default, str):
        if variable == "PACS_LOG_LEVEL" and text.lower() not in _LOG_LEVELS:
            raise SettingsError(f"{variable}={text!r} is none of {', '.join(_LOG_LEVELS)}")
        return text
    try:
        value = type(default)(text)
    except ValueError:
        raise SettingsError(f"{variable}={text!r} is not a number") from None
    if value < 0:
        raise SettingsError(f"{variable}={text!r} is negative")
    return value
