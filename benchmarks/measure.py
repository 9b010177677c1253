"""One server after the other: every benchmark that is asked for, each group on a fresh, empty server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import bench_read, bench_search, bench_store, workload
from benchmarks.report import Figure
from benchmarks.rivals import Nginx
from benchmarks.scale import Scale
from benchmarks.servers import Pacs, Server
from benchmarks.workload import Instance


def measure(
    make: Callable[[], Server], names: tuple[str, ...], data: dict[str, list[Instance]], scale: Scale,
    folder: Path | None, take: Callable[[Iterator[Figure]], None],
) -> dict[str, str]:  # fmt: skip
    """All that is asked for of one kind of server; each group has a fresh, empty one."""
    versions = {}
    source = list(data.values())[-1] if data else []
    stores = not (isinstance(make, type) and issubclass(make, Nginx))
    if stores and "store" in names:
        with make() as server:
            versions[server.name] = server.version
            take(bench_store.store(server, data))
    if {"metadata", "frames"} & set(names):
        with make() as server:
            versions[server.name] = server.version
            if isinstance(server, Nginx):
                copies = [workload.series_of(source, scale.series, "static")]
                server.prepare(copies[0])
            else:
                copies = bench_store.prepare_series(server, source, scale)
            if "metadata" in names:
                take(bench_read.metadata(server, copies, scale))
            if "frames" in names:
                take(bench_read.frames(server, copies[-1], scale))
    if stores and "slow_link" in names:
        from benchmarks import bench_slow_link, slow_link_images

        with make() as server:
            versions[server.name] = server.version
            found = slow_link_images.subjects(folder, scale)
            take((bench_slow_link.own if isinstance(server, Pacs) else bench_slow_link.rival)(server, found, scale))
    if stores and "rendered" in names:
        from benchmarks import bench_rendered

        with make() as server:
            versions[server.name] = server.version
            take(bench_rendered.rendered(server, folder, scale))
    if stores and "search" in names:
        with make() as server:
            versions[server.name] = server.version
            take(bench_search.search(server, scale))
    return versions
