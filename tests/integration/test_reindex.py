"""The index is disposable: deleted and made anew from the records, every answer is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENVIRONMENT = {"PACS_PUBLIC_URL": "http://archive.test/dicomweb"}
HEADERS = ("Content-Type", "Content-Length", "ETag", "X-Total-Count", "Warning")

SEARCHES = (
    "/studies", "/series", "/instances", "/studies?limit=2&offset=1", "/studies?PatientName=*demo*",
    "/studies?StudyDate=20000101-", "/studies?ModalitiesInStudy=CT", "/series?Modality=MR", "/studies?PatientID=*1*",
    "/studies?includefield=all", "/instances?limit=7&includefield=00080008",
)  # fmt: skip


def ask(server: Any, path: str, accept: str = "*/*") -> tuple[int, dict[str, str | None], bytes]:
    connection = server.connect()
    try:
        connection.request("GET", "/dicomweb" + path, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, {name: response.headers[name] for name in HEADERS}, response.read()
    finally:
        connection.close()


def value(element: dict[str, Any], tag: str) -> Any:
    return element[tag]["Value"][0]


def answers(server: Any) -> dict[str, tuple[int, dict[str, str | None], bytes]]:
    """A request of every kind for every study, series and some instances."""
    found = {path: ask(server, path) for path in SEARCHES}
    for series in json.loads(found["/series"][2]):
        study = f"/studies/{value(series, '0020000D')}"
        place = f"{study}/series/{value(series, '0020000E')}"
        for path in (f"{study}/series", f"{study}/instances?limit=3", f"{study}/metadata", f"{place}/metadata"):
            found[path] = ask(server, path)
        instances = json.loads(ask(server, f"{place}/instances")[2])
        for instance in (instances[0], instances[-1]):
            path = f"{place}/instances/{value(instance, '00080018')}"
            found[path] = ask(server, path, "application/dicom; transfer-syntax=*")
            found[f"{path}/metadata"] = ask(server, f"{path}/metadata")
            found[f"{path}/frames/1"] = ask(server, f"{path}/frames/1")
            found[f"{path}/rendered"] = ask(server, f"{path}/rendered?viewport=64,64", "image/png")
    return found


def test_the_same_answers_after_reindex(
    tmp_path: Path, start_server: Callable[..., Any], pacs_command: Callable[..., Any]
) -> None:
    archive = tmp_path / "archive"
    server = start_server(archive, env=ENVIRONMENT, args=["--demo"])
    before = answers(server)
    server.stop()
    assert len(before) > 60
    assert {status for status, _, _ in before.values()} <= {200, 404, 406}
    assert sum(status == 200 for status, _, _ in before.values()) > 0.9 * len(before)
    shutil.rmtree(archive / "index")
    refused = pacs_command("check", "--archive", archive)
    assert refused.returncode != 0
    assert "pacs reindex" in refused.stdout + refused.stderr
    reindexed = pacs_command("reindex", "--archive", archive)
    assert reindexed.returncode == 0, reindexed.stderr
    again = start_server(archive, env=ENVIRONMENT)
    after = answers(again)
    again.stop()
    assert {path for path in before if before[path] != after.get(path)} == set()
    checked = pacs_command("check", "--archive", archive)
    assert checked.returncode == 0, checked.stdout + checked.stderr
