"""How long does a search take in an archive of many studies? Answers are compared with a plain filter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from benchmarks import workload
from benchmarks.report import Figure
from benchmarks.scale import Scale
from benchmarks.servers import Server
from benchmarks.workload import SmallStudy
from pacs.bench import load

PAGE = 101
_FIELDS = "includefield=00081030%2C00080060"

Keep = Callable[[SmallStudy], bool]


def search(server: Server, scale: Scale) -> Iterator[Figure]:
    """Small studies are uploaded, then asked for in the ways a viewer asks."""
    studies = list(workload.small_studies(scale.studies))
    step = 50
    batches = [studies[start : start + step] for start in range(0, len(studies), step)]
    requests = [load.stow(f"{server.root}/studies", server.host, [study.data for study in batch]) for batch in batches]
    run = load.run(server.address, iter(requests), clients=4)
    rate = len(studies) / run.seconds
    yield Figure("search", f"upload of {len(studies):,} studies, {step} a request", server.name, rate, "studies/s")
    middle = studies[len(studies) // 2]
    family = middle.patient_name.partition("^")[0]
    month = middle.date[:6]
    half = len(studies) // 2
    cases: list[tuple[str, str, Keep]] = [
        ("first page", f"limit={PAGE}&offset=0&fuzzymatching=true&{_FIELDS}", lambda _: True),
        ("a page in the middle", f"limit={PAGE}&offset={half}&{_FIELDS}", lambda _: True),
        ("one Patient ID", f"PatientID={middle.patient_id}&limit={PAGE}&{_FIELDS}",
         lambda study: study.patient_id == middle.patient_id),
        ("*name*", f"PatientName=*{family}*&limit={PAGE}&{_FIELDS}", lambda study: family in study.patient_name),
        ("dates of a month", f"StudyDate={month}01-{month}31&limit={PAGE}&{_FIELDS}",
         lambda study: study.date.startswith(month)),
    ]  # fmt: skip
    for case, query, keep in cases:
        request = load.get(f"{server.root}/studies?{query}", server.host, "application/dicom+json")
        wanted = [study for study in studies if keep(study)]
        expected = min(PAGE, len(wanted) - (half if "middle" in case else 0))
        _verify(server, request, {study.uid for study in wanted}, expected)
        load.run(server.address, iter([request] * 4), clients=4)
        run = load.run(server.address, iter([request] * scale.repeats))
        detail = {"matches": len(wanted), "p95_ms": run.quantile(0.95)}
        yield Figure("search", case, server.name, run.median, "ms", False, detail)


def _verify(server: Server, request: load.Request, wanted: set[str], expected: int) -> None:
    answer = load.fetch(server.address, request)
    found = [item["0020000D"]["Value"][0] for item in json.loads(answer.body)] if answer.status == 200 else []
    if len(found) != expected or len(set(found)) != len(found) or not set(found) <= wanted:
        raise load.RequestFailedError(f"{server.name}: {request.pieces[0][:120]!r} found {len(found)} of {expected}")
