"""URLs and the resources they name."""

import pytest

from pacs.dicomweb.app import HANDLERS
from pacs.dicomweb.target import _ROOT, MAX_FRAMES, ResourceId, frame_list, parse
from pacs.errors import RequestError, UidError, UnknownResourceError

STUDY = "/dicomweb/studies/1.2"
SERIES = STUDY + "/series/1.2.3"
INSTANCE = SERIES + "/instances/1.2.3.4"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/dicomweb/studies", "search.studies"),
        ("/dicomweb/studies/", "search.studies"),
        ("/dicomweb/series", "search.series"),
        ("/dicomweb/instances", "search.instances"),
        (STUDY, "study"),
        (STUDY + "/series", "search.series"),
        (STUDY + "/instances", "search.instances"),
        (STUDY + "/metadata", "study.metadata"),
        (STUDY + "/rendered", "study.rendered"),
        (STUDY + "/thumbnail", "study.thumbnail"),
        (SERIES, "series"),
        (SERIES + "/metadata", "series.metadata"),
        (SERIES + "/instances", "search.instances"),
        (INSTANCE, "instance"),
        (INSTANCE + "/metadata", "instance.metadata"),
        (INSTANCE + "/rendered", "instance.rendered"),
        (INSTANCE + "/frames/1,2", "frames"),
        (INSTANCE + "/frames/3/rendered", "frames.rendered"),
        (INSTANCE + "/frames/3/thumbnail", "frames.thumbnail"),
        (INSTANCE + "/bulkdata/00091002", "bulkdata"),
    ],
)
def test_every_path_of_the_standard(path: str, kind: str) -> None:
    target = parse(path)
    assert target.kind == kind
    assert "1.2" not in target.template
    assert (target.study, target.series, target.instance) == (
        "1.2" if "/studies/" in path and path != "/dicomweb/studies/" else None,
        "1.2.3" if "/series/" in path else None,
        "1.2.3.4" if "/instances/" in path else None,
    )


def test_frames_and_bulk_data_are_read() -> None:
    assert parse(INSTANCE + "/frames/1,3,7").frames == (1, 3, 7)
    assert parse(INSTANCE + "/frames/2%2C1").frames == (2, 1)
    assert parse(INSTANCE.replace(".", "%2E").replace("studies", "%73tudies")) == parse(INSTANCE)
    found = parse(INSTANCE + "/bulkdata/0040A730/1/00420011")
    assert found.bulk == "0040A730/1/00420011"
    assert found.template == (
        "/dicomweb/studies/{study}/series/{series}/instances/{instance}/bulkdata/*"
    )
    assert hash(found) == hash(parse(INSTANCE + "/bulkdata/0040A730/1/00420011"))
    assert isinstance(found, ResourceId)


@pytest.mark.parametrize(
    "path",
    [
        "/", "/dicomweb", "/dicomweb/", "/dicomweb//studies", "/dicomweb/patients", STUDY + "/frames/1", SERIES + "/x",
        STUDY + "/metadata/1", INSTANCE + "/frames", INSTANCE + "/frames/1/metadata", "/dicomweb/{study}",
        "/dicomweb/studies/1.2/{series}", INSTANCE + "/bulkdata", "/dicomwebb/studies", "/dicomweb/*",
        "/dicomweb/studies//series",
    ],
)  # fmt: skip
def test_paths_that_name_nothing(path: str) -> None:
    with pytest.raises((UnknownResourceError, UidError)):
        parse(path)


@pytest.mark.parametrize(
    "uid", ["1..2", ".1", "1.", "a", "1.2 ", "1%252e2", "1%2f2", "..", "1" * 65, "\uff11.2", "1.2\x00", "-1"]
)
def test_malformed_uids_are_refused(uid: str) -> None:
    for path in (f"/dicomweb/studies/{uid}", f"{STUDY}/series/{uid}", f"{SERIES}/instances/{uid}/frames/1"):
        with pytest.raises(UidError):
            parse(path)


@pytest.mark.parametrize("text", ["0", "-1", "1,", ",1", "1,,2", "a", "1.5", "+1", " 1", "1 ", "\xb2", "9" * 11, "1-3"])
def test_malformed_frame_lists_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        frame_list(text)


def test_frame_lists_are_bounded() -> None:
    assert len(frame_list(",".join(["9"] * MAX_FRAMES))) == MAX_FRAMES
    with pytest.raises(RequestError):
        frame_list(",".join(["9"] * (MAX_FRAMES + 1)))


def kinds(node: object) -> set[str]:
    if isinstance(node, str):
        return {node}
    assert isinstance(node, dict)
    return set().union(*(kinds(child) for child in node.values()))


def test_every_kind_has_a_handler_and_the_other_way_round() -> None:
    assert kinds(_ROOT) == set(HANDLERS)
