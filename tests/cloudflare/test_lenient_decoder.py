"""One bad part spoils no whole: it is ignored and its place is reported; the rest is taken."""

import copy
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.cloudflare.errors import RequestFailed
from exporter.cloudflare.json_filter import JsonFilter
from exporter.cloudflare.lenient_decoder import decode
from exporter.cloudflare.models import Detail, Envelope, Error, Row
from exporter.cloudflare.workflows_client import WorkflowsClient
from exporter.instances.list_rows import take_row
from exporter.instances.run_tracker import track
from exporter.instances.timeline import pack

from .conftest import client_of

CAPTURES: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "simulator" / "captures.json").read_text()
)
BODIES = [c["body"] for c in CAPTURES.values() if c["http_status"] == 200]
NOW = 1_800_000_000.0
ROWS = [
    {"id": f"i-{n}", "status": "complete", "created_on": "2026-11-24T17:06:11.815Z"}
    | {"started_on": "2026-11-24T17:06:12Z", "ended_on": "2026-11-24T17:06:13Z"}
    for n in range(3)
]
NOTHING: tuple[Any, ...] = (None, "", [], {}, 0, [None], [[[[]]]])
DEEP = "nested 5,000 deep"
TEXTS = ("boom", "x" * 300, "2026-13-99T99:99:99Z", "0001-01-01T00:00:00+14:00", "\ud83d", "\udc00")
ODD = st.sampled_from((*NOTHING, *TEXTS, DEEP, -1, 1e300, 10**400, True, {"a": 1}, {"name": 5}))

Path_ = tuple[str | int, ...]


def places(value: Any, path: Path_ = ()) -> list[Path_]:
    """Every place within a response."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(p for key, part in inner for p in places(part, (*path, key)))]


def put(value: Any, path: Path_, odd: Any) -> Any:
    changed = copy.deepcopy(value)
    if not path:
        return odd
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = odd
    return changed


def written(body: Any) -> bytes:
    text = json.dumps(body)  # halves of surrogate pairs are escaped
    return text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).encode()


async def read(body: Any, ignored: list[str] | None = None) -> Any:
    """What each of the client's methods makes of a body, as plain data, or that it fails."""

    async def ask(client: WorkflowsClient, method: str) -> Any:
        try:
            match method:
                case "instances":
                    rows = (await client.instances("w", {"per_page": "100"})).rows
                    for row in rows:
                        take_row(None, None, row, now=NOW)
                    return rows
                case "instance_detail":
                    detail, _ = await client.instance_detail("w", "i")
                    assert track(None, detail, now=NOW)
                    assert pack(detail, now=NOW)
                    return detail
                case "workflows":
                    return [row async for page in client.workflows() for row in page]
                case "versions":
                    return await client.versions("w")
                case "workflow":
                    return await client.workflow("w")
                case _:
                    return await client.instance("w", "i")
        except RequestFailed as failure:
            return failure.reason

    response = httpx.Response(200, content=written(body))
    async with client_of(response, ignored=ignored) as client:
        methods = ("instances", "instance_detail", "workflows", "versions", "workflow", "instance")
        return {m: msgspec.to_builtins(await ask(client, m)) for m in methods}


def without(value: Any, path: Path_) -> Any:
    """A value but for the place."""
    key, *rest = path
    match value:
        case list() if isinstance(key, int):
            element = [without(value[key], tuple(rest))] if rest and len(value) > key else []
            return value[:key] + element + value[key + 1 :]
        case dict():
            others = {k: v for k, v in value.items() if k != key}
            inner = without(value[key], tuple(rest)) if rest and key in value else None
            return {**others, key: inner}
        case _:
            return None


@pytest.mark.slow
@given(st.data())
@settings(max_examples=300, deadline=None)
async def test_an_odd_value_at_any_place_costs_that_place_alone(data: st.DataObject) -> None:
    bodies = [*BODIES, {"success": True, "result": ROWS, "result_info": {"count": 3}}]
    body = data.draw(st.sampled_from(bodies))
    path = data.draw(st.sampled_from(places(body)))
    before = await read(body)
    after = await read(put(body, path, data.draw(ODD)))
    if len(path) < 2 or path[0] != "result":
        return  # the envelope itself; that nothing is raised is all there is to say
    for method, taken in before.items():
        if isinstance(taken, str):
            continue
        found = after[method]
        if isinstance(path[-1], int) and _size(found, path) < _size(taken, path):
            # The element itself was left out: put something in its place to compare the rest.
            found = put(found, path[1:-1], _inserted(found, path))
        assert without(found, path[1:]) == without(taken, path[1:])


INSTANCES = [body for body in BODIES if "steps" in str(body["result"])]


@pytest.mark.slow
@given(st.data())
@settings(max_examples=200, deadline=None)
def test_what_is_left_of_a_huge_response_is_read_the_same(data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(INSTANCES))
    path = data.draw(st.sampled_from(places(body)))
    whole = written(put(body, path, data.draw(ODD)))
    filter_ = JsonFilter(Envelope[Detail], max_bytes=1 << 20, max_objects=1000)
    size = data.draw(st.sampled_from([1, 7, 1000]))
    for start in range(0, len(whole), size):
        filter_.add(whole[start : start + size])
    assert _instance(bytes(filter_.end())) == _instance(whole)


def _instance(body: bytes) -> Any:
    try:
        envelope, _ = decode(body, Envelope[Detail])
    except (msgspec.MsgspecError, RecursionError) as error:
        return type(error)
    plain = msgspec.to_builtins(envelope)
    return json.loads(json.dumps(plain), object_hook=lambda d: {**d, "message": None})


def _at(value: Any, path: Path_) -> Any:
    for key in path:
        value = value[key]
    return value


def _size(value: Any, path: Path_) -> int:
    """The length of the list that holds a place, as far as it is read."""
    try:
        return len(_at(value, path[1:-1]))
    except (KeyError, IndexError, TypeError):
        return 0


def _inserted(value: Any, path: Path_) -> list[Any]:
    elements: list[Any] = list(_at(value, path[1:-1]))
    elements.insert(int(path[-1]), None)
    return elements


@pytest.mark.parametrize(
    ("row", "taken"),
    [
        (None, None),
        (5, None),
        ({"id": "i", "status": "complete", "ended_on": ""}, {"id": "i", "status": "complete"}),
        ({"id": "i", "status": 7}, {"id": "i"}),
        ({"id": "i", "status": "x" * 101}, {"id": "i"}),
    ],
)
async def test_a_bad_row_or_field_is_ignored_and_reported(row: Any, taken: Any) -> None:
    ignored: list[str] = []
    body = {"success": True, "result": [ROWS[0], row, ROWS[1]]}
    async with client_of(httpx.Response(200, json=body), ignored=ignored) as client:
        rows, _, sent, *_ = await client.instances("w", {"per_page": "100"})
    assert sent == 3, "the row counts as one that was sent"
    assert [r.id for r in rows] == ["i-0", *(["i"] if taken else []), "i-1"]
    assert len(ignored) == 1
    assert ignored[0].startswith("$.result[1]")
    if taken:
        found = msgspec.to_builtins(rows[1])
        assert {k: v for k, v in found.items() if v is not None} == taken


async def test_counts_that_are_null_are_left_out() -> None:
    body = {"success": True, "result": [{"name": "w", "instances": {"queued": None, "running": 3}}]}
    async with client_of(httpx.Response(200, json=body)) as client:
        ((workflow,),) = [page async for page in client.workflows()]
    assert workflow.instances == {"running": 3}


async def test_no_key_of_a_mapping_is_reported() -> None:
    """It is data, and may be anything, as the request's own token."""
    body = {"success": True, "result": {"name": "w", "instances": {"t0ken": {}, "queued": 1}}}
    ignored: list[str] = []
    async with client_of(httpx.Response(200, json=body), ignored=ignored) as client:
        assert (await client.workflow("w")).instances == {"queued": 1}
    assert ignored == ["$.result.instances[*]"]


@pytest.mark.parametrize("count", [-1, 10**400, 1e300, 2.5, "many", True, []])
async def test_counts_that_are_none_are_left_out(count: Any) -> None:
    body = {
        "success": True,
        "result": {"name": "w", "instances": {"queued": count, "errored": "3"}},
    }
    async with client_of(httpx.Response(200, json=body)) as client:
        assert (await client.workflow("w")).instances == {"errored": 3}


@pytest.mark.parametrize("value", [0, 5, 1_800_000_000, 1.5, "5", "2026-11-24", True])
async def test_a_number_is_no_time(value: Any) -> None:
    """It would be one in 1970."""
    ignored: list[str] = []
    body = {"success": True, "result": {"status": "complete", "end": value}}
    async with client_of(httpx.Response(200, json=body), ignored=ignored) as client:
        summary = await client.instance("w", "i")
    assert (summary.status, summary.end, ignored) == ("complete", None, ["$.result.end"])


@pytest.mark.parametrize("config", ["default", {"retries": 3}, {"retries": {"limit": "many"}}])
async def test_a_retry_limit_that_cannot_be_read_is_not_known(config: Any) -> None:
    ignored: list[str] = []
    steps = [{"type": "step", "name": "a-1", "config": config}]
    body = {"success": True, "result": {"steps": steps}}
    async with client_of(httpx.Response(200, json=body), ignored=ignored) as client:
        detail, _ = await client.instance_detail("w", "i")
    assert [(s.name, s.retry_limit) for s in detail.steps or []] == [("a-1", None)]
    assert len(ignored) == 1


async def test_what_is_nested_too_deep_costs_its_place_alone() -> None:
    ignored: list[str] = []
    result = {"output": DEEP, "status": "running", "version": DEEP, "step_count": DEEP}
    response = httpx.Response(200, content=written({"success": True, "result": result}))
    async with client_of(response, ignored=ignored) as client:
        assert (await client.instance("w", "i")).status == "running"
    assert ignored == ["$.result.step_count"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    [b"[1" + b",1" * 2_000_000 + b"]", b"[" * 300_000 + b"]" * 300_000 + b",[]" * 200_000, b"["],
    ids=["elements", "lists", "no end"],
)
def test_there_is_a_limit_to_what_is_taken_apart(value: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, RecursionError)):
        decode(b'{"success":true,"result":%s}' % value, Envelope[list[Row]])


async def test_a_list_that_is_null_is_empty_and_one_that_is_missing_a_failure() -> None:
    async with client_of(httpx.Response(200, json={"success": True, "result": None})) as client:
        assert (await client.instances("w", {"per_page": "100"})).rows == []
        with pytest.raises(RequestFailed, match="no result"):
            await client.instance("w", "i")
    for body in ({"success": True}, {"success": True, "result": "no list"}):
        async with client_of(httpx.Response(200, json=body)) as client:
            with pytest.raises(RequestFailed):
                await client.instances("w", {"per_page": "100"})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Error: boom", Error("Error", "boom")),
        ("CardError: no: declined", Error("CardError", "no: declined")),
        ("it broke", Error(None, "it broke")),
        ("no such host: x", Error(None, "no such host: x")),
        ("customer_42: card declined", Error(None, "customer_42: card declined")),
        ("", None),
    ],
)
async def test_an_error_as_text_is_read(text: str, error: Error | None) -> None:
    step = {"type": "step", "name": "a-1", "error": text}
    result = {"queued": None, "status": "errored", "error": text, "steps": [step]}
    ignored: list[str] = []
    body = {"success": True, "errors": ["boom"], "result": result}
    async with client_of(httpx.Response(200, json=body), ignored=ignored) as client:
        detail, _ = await client.instance_detail("w", "i")
    assert (detail.error, detail.status, detail.queued) == (error, "errored", None)
    assert [s.error for s in detail.steps or []] == [error]
    assert ignored == []


async def test_errors_as_texts_say_what_went_wrong() -> None:
    async with client_of(httpx.Response(500, json={"errors": ["boom"]})) as client:
        with pytest.raises(RequestFailed, match="HTTP 500: boom"):
            await client.instance("w", "i")


class TestHalfACharacter:
    """Half a surrogate pair, which the engine sends where a text was cut in mid-character."""

    @pytest.mark.parametrize(
        ("escaped", "name"),
        [
            (r"cut \ud83d", "cut \ufffd"),
            (r"\ude00 cut", "\ufffd cut"),
            (r"\ud83d\ud83d\ude00\ude00", "\ufffd\U0001f600\ufffd"),
            (r"\\ud83d\ud83d", "\\ud83d\ufffd"),
            (r"\\\ud83d", "\\\ufffd"),
            (r"\\\\ud83d\"\ude00", '\\\\ud83d"\ufffd'),
            (r"\uD83Dx\n", "\ufffdx\n"),
        ],
    )
    async def test_it_is_read_as_the_replacement_character(self, escaped: str, name: str) -> None:
        step = f'{{"type": "step", "name": "{escaped}", "{escaped}": 1, "output": "{escaped}"}}'
        body = f'{{"success": true, "result": {{"params": ["{escaped}"], "steps": [{step}]}}}}'
        ignored: list[str] = []
        async with client_of(httpx.Response(200, text=body), ignored=ignored) as client:
            detail, _ = await client.instance_detail("w", "i")
        assert [s.name for s in detail.steps or []] == [name]
        assert ignored == []

    async def test_beside_a_field_that_cannot_be_read(self) -> None:
        ignored: list[str] = []
        body = r'{"success": true, "result": {"status": 5, "versionId": "v\ud83d"}}'
        async with client_of(httpx.Response(200, text=body), ignored=ignored) as client:
            summary = await client.instance("w", "i")
        assert (summary.version_id, ignored) == ("v\ufffd", ["$.result.status"])

    async def test_bytes_that_are_no_utf_8_are_replaced(self) -> None:
        body = b'{"success": true, "result": {"status": "run\xed\xa0\xbdning"}}'
        async with client_of(httpx.Response(200, content=body)) as client:
            assert (await client.instance("w", "i")).status == "run\ufffd\ufffd\ufffdning"

    @pytest.mark.parametrize("place", ["name", "output", "key", "message"])
    async def test_in_a_huge_response_too(self, place: str) -> None:
        half = r"half \ud83d"
        step: dict[str, Any] = {"type": "step", "name": "a-1", "output": "x" * 5_000_000}
        text = json.dumps(step)
        match place:
            case "name":
                text = text.replace("a-1", half)
            case "output":
                text = text.replace('"xx', f'"{half} xx')
            case "key":
                text = text.replace('"output"', f'"{half}": 1, "output"')
            case _:
                text = text.replace('"output"', f'"error": {{"message": "{half}"}}, "output"')
        body = f'{{"success": true, "result": {{"status": "running", "steps": [{text}]}}}}'
        async with client_of(httpx.Response(200, text=body)) as client:
            detail, size = await client.instance_detail("w", "i")
        assert size > 5_000_000
        expected = "half \ufffd" if place == "name" else "a-1"
        assert [s.name for s in detail.steps or []] == [expected]
