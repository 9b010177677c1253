"""How fast are instances stored by STOW-RS, and how many bytes do they take on disk?

Every run sends instances that the server has not seen. Answers are verified: the status of each request, and the
number of instances of each series afterwards. "Stored" means acknowledged, with the server's durability on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from benchmarks import workload
from benchmarks.report import Figure
from benchmarks.scale import Scale
from benchmarks.servers import Server
from benchmarks.workload import Instance
from pacs.bench import load

RUNS = ((1, 1), (10, 1), (1, 4), (10, 4))
"""(instances in a request, clients)"""


def store(server: Server, data: dict[str, list[Instance]]) -> Iterator[Figure]:
    """Uploads of each series in `data`, then the bytes they take."""
    received = 0
    send(server, [instance.renamed("warm") for series in data.values() for instance in series[:4]], 2, 1)
    for name, series in data.items():
        for per_request, clients in RUNS:
            instances = [instance.renamed(f"{per_request} {clients}") for instance in series]
            received += sum(len(instance.data) for instance in instances)
            cpu = server.cpu_seconds()
            run = send(server, instances, per_request, clients)
            cpu = (server.cpu_seconds() - cpu) / len(instances)
            stored = count_instances(server, instances[0])
            if stored != len(instances):
                raise load.RequestFailedError(f"{server.name} holds {stored} instances of {len(instances)} sent")
            case = f"{name}, {per_request} a request, {clients} client{'s' * (clients > 1)}"
            detail = {
                "instances": len(instances), "seconds": run.seconds, "median_ms": run.median,
                "p95_ms": run.quantile(0.95), "client_cpu_share": run.client_seconds / run.seconds,
            }  # fmt: skip
            yield Figure("store", case, server.name, len(instances) / run.seconds, "instances/s", detail=detail)
            megabytes = sum(len(instance.data) for instance in instances) / 1e6
            yield Figure("store", case, server.name, megabytes / run.seconds, "MB/s")
            # Wall clock on a busy machine tells of the others too; this does not.
            yield Figure("store", case, server.name, cpu * 1e3, "ms of CPU", False)
    used = server.bytes_on_disk()
    detail = {"received": received, "on_disk": used}
    yield Figure("disk", "bytes on disk of bytes received", server.name, used / received, "share", False, detail)
    yield Figure("memory", "most memory held after uploads", server.name, server.peak_memory() / 1e6, "MB", False)


def send(server: Server, instances: list[Instance], per_request: int, clients: int) -> load.Load:
    """Upload `instances`, in order."""
    batches = [instances[start : start + per_request] for start in range(0, len(instances), per_request)]
    path = f"{server.root}/studies"
    requests = [load.stow(path, server.host, [instance.data for instance in batch]) for batch in batches]
    return load.run(server.address, iter(requests), clients=clients, keep=True, check=_stored)


def _stored(response: load.Response) -> None:
    if response.status != 200 or (b"00081198" in response.body and _failures(response.body)):
        raise load.RequestFailedError(f"status {response.status}: {response.body[:500]!r}")


def _failures(body: bytes) -> bool:
    return bool(json.loads(body).get("00081198", {}).get("Value"))


def count_instances(server: Server, one: Instance) -> int:
    """How many instances the server lists for the series of `one`."""
    path = f"{server.root}/studies/{one.study}/series/{one.series}/instances?limit=5000"
    answer = load.fetch(server.address, load.get(path, server.host, "application/dicom+json"))
    return len(json.loads(answer.body)) if answer.status == 200 else 0


def prepare_series(server: Server, source: list[Instance], scale: Scale) -> list[list[Instance]]:
    """Upload copies of one series of the size that the reading benchmarks want."""
    copies = []
    for copy in range(scale.series_copies):
        series = workload.series_of(source, scale.series, f"copy {copy}")
        send(server, series, 10, 4)
        if count_instances(server, series[0]) != len(series):
            raise load.RequestFailedError(f"{server.name} does not hold the series it was sent")
        copies.append(series)
    return copies
