"""Plays a script: its pieces and interventions become points in time.

Times are whole milliseconds since the run was queued, so that they come out exactly. The result
is complete from the start to the end, the future included; a response at any moment is a cut
through it. An intervention changes only what comes after it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Literal
from weakref import WeakKeyDictionary

from .lifecycle_events import events_of
from .run_script import Error, Parallel, Piece, Script, Sleep, Step, Wait

NEVER = 1 << 62
"""A time that doesn't come."""

FATAL = "WorkflowFatalError"
"""The engine's name for a failure that is not to be retried. It stops the whole instance."""

RecordType = Literal["step", "sleep", "waitForEvent", "rollback", "termination"]


@dataclass(frozen=True, slots=True)
class Intervention:
    """Something done to a run from outside.

    `value` is the event's (type, payload), the forced status, or for `terminate` the trigger
    source to show in a termination step (None shows none) and whether to roll back.
    """

    at: int
    verb: Literal["pause", "resume", "terminate", "event", "status"]
    value: Any = None


@dataclass(slots=True)
class PlayedAttempt:
    start: int
    end: int
    error: Error | None


@dataclass(slots=True)
class Record:
    """One entry of an instance's `steps`, over its whole life."""

    type: RecordType
    start: int
    end: int
    piece: Any
    name: str = ""
    planned: int = NEVER
    attempts: list[PlayedAttempt] = field(default_factory=list)
    error: Error | None = None
    output: Any = None

    def cut(self, at: int) -> None:
        """What hasn't ended when the run does stays open for ever."""
        if self.end > at:
            self.end = NEVER
        self.attempts = [a for a in self.attempts if a.start < at]
        for attempt in self.attempts:
            if attempt.end > at:
                attempt.end = NEVER


@dataclass(slots=True)
class Timeline:
    """A run as played. `marks` are (time, status), each valid until the next one; `events` are
    (time, kind), as event subscriptions publish them."""

    start: int
    end: int
    error: Error | None
    output: Any
    final: str
    rollback_error: Error | None
    rolled_back: bool
    records: list[Record]
    marks: list[tuple[int, str]]
    moves: list[int]
    events: list[tuple[int, str]]

    def status(self, at: int) -> str:
        return self.marks[max(0, bisect_right(self.marks, at, key=_first) - 1)][1]

    def next_mark(self, after: int) -> int:
        index = bisect_right(self.marks, after, key=_first)
        return self.marks[index][0] if index < len(self.marks) else NEVER

    def last_mark(self, at: int) -> int:
        return self.marks[max(0, bisect_right(self.marks, at, key=_first) - 1)][0]

    def last_move(self, at: int) -> int:
        """When a status, step or attempt last changed."""
        index = bisect_right(self.moves, at)
        return self.moves[index - 1] if index else 0

    def begun(self, at: int) -> int:
        """How many records have started: `step_count`."""
        return bisect_right(self.records, at, key=attrgetter("start"))


def _first(entry: tuple[Any, ...]) -> Any:
    return entry[0]


def milliseconds(seconds: float | None) -> int:
    return NEVER if seconds is None else round(seconds * 1000)


_undisturbed: WeakKeyDictionary[Script, Timeline] = WeakKeyDictionary()


def undisturbed(script: Script) -> Timeline:
    """The run without interventions, played once for all instances that share the script."""
    timeline = _undisturbed.get(script)
    if timeline is None:
        timeline = _undisturbed[script] = play(script)
    return timeline


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart from a step: what continues from where.

    `at` is when the instance was restarted, `resumed` when it left the queue after that, `started`
    when its run had started; `unchanged` are the records that it leaves.
    """

    at: int
    resumed: int
    started: int
    unchanged: Sequence[Record]


def play(
    script: Script, interventions: Iterable[Intervention] = (), restart: Restart | None = None
) -> Timeline:
    """Play a script from being queued, or restarted from a step, to its end."""
    interventions = sorted(interventions, key=attrgetter("at"))
    player = _Player(script, interventions, restart)
    timeline = player.play()
    for begin, end in _pauses([i for i in interventions if i.at >= player.begins]):
        if begin >= timeline.end:
            break
        running = [a.end for a in player.running(timeline.records) if a.start < begin < a.end]
        player.pauses.append((begin, end))
        if max(running, default=begin) < end:
            player.rests.append((max(running, default=begin), end))
        timeline = player.play()
    return timeline


def records_before(timeline: Timeline, at: int, name: str, number: int, kind: str) -> list[Record]:
    """What of a run stays when it is restarted at `at` from the `number`-th step of a name and
    type: what began before that. What hasn't ended by then is still open.

    Raises:
        LookupError: no such step has begun.
    """
    unchanged: list[Record] = []
    for record in timeline.records[: timeline.begun(at)]:
        if record.type == kind and record.piece.name == name:
            number -= 1
            if not number:
                return unchanged
        if record.type in {"step", "sleep", "waitForEvent"}:
            copy = _copy(record)
            copy.cut(at)
            unchanged.append(copy)
    raise LookupError(f'Step "{name}" not found in execution history')


_CountedAs = tuple[str, str, float | None]


def _counted_as(kind: str, piece: Any) -> _CountedAs:
    return kind, piece.name, piece.duration if isinstance(piece, Sleep) else None


def _copy(record: Record) -> Record:
    return replace(record, attempts=[replace(attempt) for attempt in record.attempts])


class _Player:
    def __init__(
        self, script: Script, interventions: Sequence[Intervention], restart: Restart | None
    ) -> None:
        self.script = script
        self.restart = restart
        self.begins = restart.resumed if restart else milliseconds(script.queued)
        """When it leaves the queue, in which nobody can pause it."""
        unchanged = restart.unchanged if restart else ()
        self.unchanged = {(_counted_as(r.type, r.piece), r.name): r for r in unchanged}
        self.counters: Counter[_CountedAs] = Counter()
        self.pauses: list[tuple[int, int]] = []
        """In these nothing begins."""
        self.rests: list[tuple[int, int]] = []
        """In these it is paused: what ran has ended, and timers stand still."""
        self.sent = [i for i in interventions if i.verb == "event"]
        self.forced = [(i.at, i.value) for i in interventions if i.verb == "status"]
        self.terminate = next((i for i in interventions if i.verb == "terminate"), None)

    def play(self) -> Timeline:
        script, restart = self.script, self.restart
        self.counters.clear()
        self.events = self.sent.copy()
        begins = self.unpaused(self.begins)
        start = restart.started if restart else begins
        records: list[Record] = []
        end, error = self.sequence(script.pieces, begins, records)
        if error is None and end < NEVER:
            error = script.throws
        final = "complete" if error is None else "errored"
        roll_back = error is not None
        if self.terminate is not None and self.terminate.at < end:
            end, error, final = self.terminate.at, None, "terminated"
            start = start if start < end else NEVER
            begins = min(begins, end)
            source, roll_back = self.terminate.value
            records = [r for r in records if r.start < end]
            for record in records:
                record.cut(end)
            if source is not None:
                records.append(Record("termination", end, end, source))
        stop, rollback_error = end, None
        if roll_back:
            for step in script.rollback:
                end, failure = self.step(step, end, records, "rollback")
                rollback_error = rollback_error or failure
        records.sort(key=attrgetter("start"))
        _number(records)
        marks = self.marks(begins, stop, end, final, records)
        if restart:
            # Its status moves with the restart, whatever it then is.
            before = [status for time, status in marks if time <= restart.at]
            marks = [(restart.at, before[-1]), *(m for m in marks if m[0] > restart.at)]
        moves = {time for time, _ in marks}
        for record in records:
            moves.update((record.start, record.end))
            moves.update(t for a in record.attempts for t in (a.start, a.end))
        return Timeline(
            start=start,
            end=end,
            error=error,
            output=script.output if final == "complete" else None,
            final=final,
            rollback_error=rollback_error,
            rolled_back=roll_back and bool(script.rollback),
            records=records,
            marks=marks,
            moves=sorted(moves - {NEVER}),
            events=events_of(marks, _retried(records)),
        )

    def running(self, records: Iterable[Record]) -> Iterator[PlayedAttempt]:
        """The attempts of steps but those that a restart interrupted, which stay open."""
        since = self.restart.at if self.restart else 0
        for record in records:
            if record.type == "step":
                yield from (a for a in record.attempts if a.end < NEVER or a.start >= since)

    def elapsed(self, start: int, seconds: float | None) -> int:
        """When a timer ends that stands still while the run is paused."""
        end = _later(start, seconds)
        for begin, until in self.rests:
            if start < until and begin < end:
                end = min(NEVER, end + until - max(begin, start))
        return end

    def unpaused(self, time: int) -> int:
        """The first moment from `time` on at which something may begin."""
        for begin, end in self.pauses:
            if begin <= time < end:
                time = end
        return time

    def sequence(
        self, pieces: Iterable[Piece], time: int, records: list[Record]
    ) -> tuple[int, Error | None]:
        for piece in pieces:
            if time >= NEVER:
                break
            time, error = self.piece(piece, time, records)
            time = self.unpaused(time)
            if error is not None and not getattr(piece, "caught", False):
                return time, error
        return time, None

    def piece(self, piece: Piece, time: int, records: list[Record]) -> tuple[int, Error | None]:
        match piece:
            case Step():
                return self.step(piece, time, records, "step")
            case Sleep():
                return self.sleep(piece, time, records)
            case Wait():
                return self.wait(piece, time, records)
            case Parallel():
                return self.parallel(piece, time, records)

    def record(self, kind: RecordType, time: int, piece: Any, records: list[Record]) -> Record:
        """A new record, or the one that a restart from a later step unchanged."""
        counted_as = _counted_as(kind, piece)
        self.counters[counted_as] += 1
        name = f"{piece.name}-{self.counters[counted_as]}"
        known = self.unchanged.get((counted_as, name))
        record = _copy(known) if known else Record(kind, time, NEVER, piece)
        records.append(record)
        return record

    def step(
        self, step: Step, time: int, records: list[Record], kind: Literal["step", "rollback"]
    ) -> tuple[int, Error | None]:
        """A pause waits for an attempt that runs; the next one waits for the resume."""
        record = self.record(kind, time, step, records)
        if record.end < NEVER:
            return time, record.error
        # An attempt that a restart interrupted stays open for ever, and is made again.
        made = sum(attempt.end < NEVER for attempt in record.attempts)
        rolls_back = kind == "rollback"
        for number, attempt in enumerate(step.attempts[made:], made + 1):
            time = time if rolls_back else self.unpaused(time)
            if time >= NEVER:
                break
            end = _later(time, attempt.duration)
            record.attempts.append(PlayedAttempt(time, end, attempt.error))
            if number == len(step.attempts):
                record.end, record.error = end, attempt.error
            time = _later(end, step.backoff) if rolls_back else self.elapsed(end, step.backoff)
        return record.end, record.error

    def sleep(self, sleep: Sleep, time: int, records: list[Record]) -> tuple[int, Error | None]:
        """One that a restart left open ends with it."""
        record = self.record("sleep", time, sleep, records)
        if record.end < NEVER:
            return time, None
        begun = record.start < time
        record.end = time if begun else self.elapsed(record.start, sleep.duration)
        record.planned = _later(record.start, sleep.duration) if record.end >= NEVER else record.end
        return record.end, None

    def wait(self, wait: Wait, time: int, records: list[Record]) -> tuple[int, Error | None]:
        """One that a restart left open has its whole timeout again."""
        record = self.record("waitForEvent", time, wait, records)
        if record.end < NEVER:
            return time, record.error
        record.end = due = self.elapsed(time, wait.timeout)
        record.planned = _later(time, wait.timeout) if due >= NEVER else due
        for event in self.events:
            kind, payload = event.value
            if kind == wait.event_type and event.at <= due:
                self.events.remove(event)
                record.end = self.unpaused(max(time, event.at))
                record.output = (kind, payload, event.at)
                return record.end, None
        record.error = Error(
            "WorkflowTimeoutError", f"Execution timed out after {round(wait.timeout * 1000)}ms"
        )
        return record.end, record.error

    def parallel(
        self, group: Parallel, time: int, records: list[Record]
    ) -> tuple[int, Error | None]:
        """As `Promise.all`: ends with its last branch, or with the first one that fails. What is
        open beside that outlives the run, unless the failure is one that stops all at once."""
        outcomes: list[tuple[int, Error | None, list[Record]]] = []
        for branch in group.branches:
            own: list[Record] = []
            end, error = self.sequence(branch, time, own)
            outcomes.append((end, error, own))
        failed = [outcome for outcome in outcomes if outcome[1] is not None]
        first = min(failed, key=_first) if failed else None
        for outcome in outcomes:
            own = outcome[2]
            if first is not None and outcome is not first:
                own = [record for record in own if record.start < first[0]]
                for record in own if first[1] and first[1].name == FATAL else ():
                    record.cut(first[0])
            records.extend(own)
        if first is not None:
            return first[0], first[1]
        return max((end for end, _, _ in outcomes), default=time), None

    def marks(
        self, start: int, stop: int, end: int, final: str, records: list[Record]
    ) -> list[tuple[int, str]]:
        """The status at each moment, by sweeping over everything that starts or ends."""
        working: Counter[int] = Counter()
        idle: Counter[int] = Counter()
        running: Counter[int] = Counter()
        for attempt in self.running(records):
            running[attempt.start] += 1
            running[attempt.end] -= 1
        for record in records:
            change = working if record.type in {"step", "rollback"} else idle
            change[record.start] += 1
            change[record.end] -= 1
        times = {0, start, stop, end, *working, *idle, *running}
        times |= {time for pause in self.pauses for time in pause}
        times |= {time for time, _ in self.forced}
        marks: list[tuple[int, str]] = []
        open_steps = open_waits = attempts = 0
        for time in sorted(times - {NEVER}):
            open_steps += working[time]
            open_waits += idle[time]
            attempts += running[time]
            paused = any(begin <= time < until for begin, until in self.pauses)
            if time >= end:
                status = final
            elif time >= stop:
                status = "rollingBack"
            elif paused:
                status = "waitingForPause" if attempts else "paused"
            elif time < start:
                status = "queued"
            else:
                status = "waiting" if open_waits and not open_steps else "running"
            forced = [value for at, value in self.forced if at <= time]
            if forced:
                status = forced[-1] or status
            if not marks or marks[-1][1] != status:
                marks.append((time, status))
        return marks


def _later(time: int, seconds: float | None) -> int:
    return min(NEVER, time + milliseconds(seconds))


def _retried(records: Iterable[Record]) -> Iterator[int]:
    """When attempts failed that another followed."""
    for record in records:
        if record.type == "step":
            for attempt in record.attempts[:-1]:
                if attempt.error is not None and attempt.end < NEVER:
                    yield attempt.end


def _pauses(interventions: Iterable[Intervention]) -> list[tuple[int, int]]:
    pauses: list[tuple[int, int]] = []
    begin: int | None = None
    for intervention in interventions:
        if intervention.verb == "pause" and begin is None:
            begin = intervention.at
        elif intervention.verb == "resume" and begin is not None:
            pauses.append((begin, intervention.at))
            begin = None
    if begin is not None:
        pauses.append((begin, NEVER))
    return pauses


def _number(records: Iterable[Record]) -> None:
    """Give names the counter that the engine adds: the n-th of its type and name; of a sleep,
    also of its duration."""
    seen: Counter[_CountedAs] = Counter()
    for record in records:
        if record.type != "termination":
            key = _counted_as(record.type, record.piece)
            seen[key] += 1
            record.name = f"{record.piece.name}-{seen[key]}"
