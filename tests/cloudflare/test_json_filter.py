"""The filter: what is left of JSON reads the same as the whole, wherever it was cut into pieces."""

import itertools
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.cloudflare.event_queue import Pulled
from exporter.cloudflare.json_filter import InvalidBody, JsonFilter
from exporter.cloudflare.models import (
    Detail,
    Envelope,
    ListedAccount,
    ListedWorkflow,
    Row,
    Summary,
    WorkflowVersion,
)

MODELS: list[Any] = [Envelope[Detail], Envelope[list[Row]], Envelope[ListedWorkflow]]
QUEUED = "2026-11-24T17:06:11Z"


def filtered(pieces: Iterable[bytes], model: Any = Envelope[Detail], most: int = 1 << 20) -> bytes:
    filter_ = JsonFilter(model, max_bytes=most, max_objects=1000)
    for piece in pieces:
        filter_.add(piece)
    return bytes(filter_.end())


def read(body: bytes, model: Any = Envelope[Detail]) -> object:
    """What it is read as; the kind of error, where it can't be."""
    try:
        return msgspec.json.decode(body, type=model, strict=False)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        return type(error)


def pieces(body: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(places)]


def bytewise(body: bytes) -> list[bytes]:
    return [body[n : n + 1] for n in range(len(body))]


READ = ("queued", "status", "start", "end", "success", "error", "name", "message", "steps", "type")
MORE = ("attempts", "finished", "step_count", "versionId", "trigger", "source", "instances", "id")
# Those with # stand for keys that are there twice.
TWICE = ("status#", "steps#", "output#")
DROPPED = (
    "output",
    "params",
    "payload",
    "config",
    "stack",
    "",
    'a"b',
    "back\\slash",
    "ключ",
)
keys = st.sampled_from([*READ, *MORE, *TWICE, *DROPPED])
# Short enough that of a message nothing is cut.
texts = st.text(max_size=6) | keys | st.sampled_from([QUEUED, "\\", '"', '{"', "]}", '":', "é😀"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
attempts = st.lists(
    st.fixed_dictionaries({"start": st.just(QUEUED)}, optional={"error": values, "output": values})
)
steps = st.lists(
    st.fixed_dictionaries(
        {"name": texts, "output": values, "attempts": attempts},
        optional={"config": values, "error": st.dictionaries(keys, texts), "end": st.just(QUEUED)},
    ),
    max_size=3,
)
results = st.fixed_dictionaries(
    {"queued": st.just(QUEUED), "steps": steps},
    optional={"params": values, "output": values, "status": texts, "error": st.none() | values},
)


def _with_plain_message(value: dict[str, object]) -> dict[str, object]:
    """A list or an object as a message is read as none; the whole of it would be refused."""
    if isinstance(value.get("message"), list | dict):
        value["message"] = None
    return value


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Envelopes as any encoder may write them: spaces, escapes in keys and values, keys twice."""
    result = json.loads(json.dumps(draw(results | values)), object_hook=_with_plain_message)
    body: dict[str, Any] = {"success": True, "result": result}
    text = json.dumps(
        body,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 1])),
        separators=draw(st.sampled_from([(",", ":"), (" , ", " \t: ")])),
    )
    if draw(st.booleans()):
        text = text.replace('"output"', r'"out\u0070ut"').replace('"status"', r'"st\u0061tus"')
    return text.replace('#"', '"').encode()


def without_messages(response: object) -> object:
    if isinstance(response, type):
        return response
    return json.loads(msgspec.json.encode(response), object_hook=_without_message)


def _without_message(value: dict[str, object]) -> dict[str, object]:
    value.pop("message", None)
    return value


class TestWhatIsLeft:
    @pytest.mark.parametrize(
        "result",
        [
            Summary,
            Pulled,
            ListedWorkflow,
            list[ListedAccount],
            list[ListedWorkflow],
            list[WorkflowVersion],
        ],
    )
    def test_of_any_response_that_is_read(self, result: Any) -> None:
        body = b'{"success":true,"result":null,"errors":[{"code":7}]}'
        assert filtered([body], Envelope[result]) == body

    @pytest.mark.slow
    @settings(max_examples=200, deadline=None)
    @given(
        body=bodies(),
        cuts=st.lists(st.integers(0, 10_000), max_size=12),
        model=st.sampled_from(MODELS),
    )
    def test_it_reads_as_the_whole_does(self, body: bytes, cuts: list[int], model: Any) -> None:
        whole = without_messages(read(body, model))
        for cut in (pieces(body, cuts), bytewise(body)):
            assert without_messages(read(filtered(cut, model), model)) == whole

    def test_it_is_the_same_however_the_whole_was_cut(self) -> None:
        body = msgspec.json.encode(
            {
                "result": {
                    "queued": QUEUED,
                    "error": {"message": 'a\\ "é😀"\n' * 9, "stack": ""},
                }
            }
        )
        assert {
            filtered(pieces(body, [n, m])) for n in range(len(body)) for m in (n + 1, n + 7)
        } == {filtered([body])}

    def test_nothing_of_outputs_params_and_stacks(self) -> None:
        value = {"hidden": ["hidden", {"status": "hidden"}]}
        error = {"name": "TypeError", "message": "no"}
        step = {"name": "pay", "output": "hidden", "error": {**error, "stack": "hidden"}}
        body = {"params": value, "output": [value], "steps": [step], "status": "output"}
        left = filtered([msgspec.json.encode({"result": body})])
        assert b"hidden" not in left
        assert json.loads(left)["result"] == {
            "": 0,
            "steps": [
                {"name": "pay", "": 0, "error": {"name": "TypeError", "message": "no", "": 0}}
            ],
            "status": "output",
        }

    def test_counts_under_names_of_their_own(self) -> None:
        """A workflow's counts by status: numbers stay, whatever their key."""
        body = b'{"result":{"name":"orders","instances":{"queued":1,"new":2},"more":{"a":1}}}'
        response = read(
            filtered(bytewise(body), Envelope[ListedWorkflow]), Envelope[ListedWorkflow]
        )
        assert response == Envelope(ListedWorkflow("orders", {"queued": 1, "new": 2}))


class TestMessages:
    """They are compared and never shown: the beginning is enough."""

    def left(self, written: bytes) -> str:
        body = b'{"result":{"queued":"%s","error":{"message":"%s"}}}' % (QUEUED.encode(), written)
        lefts = {filtered(cut) for cut in ([body], bytewise(body))}
        (left,) = lefts
        message = json.loads(left)["result"]["error"]["message"]
        assert isinstance(message, str)
        return message

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("written", "left"),
        [
            ("no such order", "no such order"),
            ("é😀".encode(), "é😀"),
            (rb"a \"b\" \\ \/ \n", 'a "b" \\ / \n'),
            (rb"caf\u00e9", "caf"),
            (rb"\ud83d\ude00", ""),
            (b"a" * 199 + "é".encode() + b"b", "a" * 199 + "é"),
            (b"a" * 1_000_000, "a" * 200),
            (rb"\\" * 1000, "\\" * 200),
            (rb"\"" * 1000, '"' * 200),
        ],
    )
    def test_cut_between_characters(self, written: bytes | str, left: str) -> None:
        assert self.left(written.encode() if isinstance(written, str) else written) == left

    @settings(deadline=None)
    @given(st.text())
    def test_it_is_a_beginning(self, message: str) -> None:
        written = json.dumps(message, ensure_ascii=False)[1:-1]
        assert message.startswith(self.left(written.encode("utf-8", "surrogatepass")))


class TestWhatCannotBeRead:
    def test_a_body_that_ends_anywhere_too_early(self) -> None:
        """In a value that is dropped, too."""
        step = {"name": "a", "output": [{"b": "c\\"}], "error": {"message": "no"}}
        body = msgspec.json.encode({"result": {"queued": QUEUED, "steps": [step], "output": "x"}})
        assert isinstance(read(filtered([body])), Envelope)
        for end in range(len(body)):
            assert read(filtered(pieces(body[:end], [end // 2]))) is msgspec.DecodeError

    @pytest.mark.parametrize("opening", [b"[", b'{"a":', b'["",{"b":', b"[[]"])
    def test_what_is_dropped_is_nested_too_deep(self, opening: bytes) -> None:
        body = b'{"result":{"output":' + opening * 100_000
        with pytest.raises(InvalidBody, match="nested more than 10000 deep"):
            filtered(pieces(body, range(0, len(body), 4096)))

    def test_what_is_dropped_is_nested_as_deep_as_may_be(self) -> None:
        body = b'{"result":{"queued":"%s","output":%s}}' % (
            QUEUED.encode(),
            b"[" * 10_000 + b"]" * 10_000,
        )
        assert isinstance(read(filtered(bytewise(body))), Envelope)

    @pytest.mark.parametrize("more", [b"x", b'\\"', b"\\\\"])
    def test_of_a_name_that_is_far_too_long_nothing_is_left(self, more: bytes) -> None:
        end = [b'","start":"', QUEUED.encode(), b'"}}']
        body = b"".join([b'{"result":{"queued":"%s","status":"' % QUEUED.encode(), more * 100_000])
        left = filtered(pieces(body + b"".join(end), range(0, len(body), 1000)))
        assert json.loads(left)["result"] == {"queued": QUEUED, "status": "", "start": QUEUED}

    def test_spaces_without_end_after_a_name(self) -> None:
        spaces = [b" " * 1000] * 100
        for parts in ([b'"status"', *spaces, b':"x"'], [b'"status":"x"', *spaces]):
            left = filtered([b'{"result":{"queued":1,', *parts, b',"success":true}}'])
            assert json.loads(left)["result"]["success"] is True
            assert len(left) < 150_000

    def test_more_to_keep_than_may_be(self) -> None:
        with pytest.raises(InvalidBody, match="more than 1000 bytes without outputs"):
            filtered([b'{"result":{"steps":[', *[b'{"success":true},'] * 100], most=1000)

    def test_more_objects_than_may_be(self) -> None:
        opening = b'{"result":{"queued":"%s","steps":[{"attempts":[' % QUEUED.encode()
        assert isinstance(read(filtered([opening, b"{}," * 996, b"{}]}]}}"])), Envelope)
        with pytest.raises(InvalidBody, match="too many steps and attempts"):
            filtered([opening, b"{}," * 998, b"{}]}]}}"])

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=20) | st.sampled_from([b'"', b"\\", b'{"output":', b"]}"])))
    def test_rubbish(self, rubbish: list[bytes]) -> None:
        """It is read as what it is."""
        assert len(filtered(rubbish)) <= sum(map(len, rubbish))


class TestWhatIsHeld:
    @pytest.mark.parametrize(
        "value", [b'"' + b"x" * 50_000 + b'"', b"[" + b'{"a":"b"},' * 5000 + b"1]"]
    )
    def test_large_values_leave_nothing(self, value: bytes) -> None:
        step = b'{"name":"a","output":%s},' % value
        filter_ = JsonFilter(Envelope[Detail], max_bytes=10_000, max_objects=1000)
        filter_.add(b'{"result":{"queued":"%s","steps":[' % QUEUED.encode())
        for _ in range(100):
            filter_.add(step)
        filter_.add(b"{}]}}")
        assert len(filter_.end()) < 3000
