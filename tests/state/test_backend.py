"""What both backends of the state do, in SQLite and in PostgreSQL."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.cloudflare.replica_budgets import BudgetUse
from exporter.state.backend import TABLES, Backend, Batch, RecordKey, StoredRow
from exporter.state.sqlite import Sqlite
from tests.postgres import PostgresServer
from tests.state.backends import (
    EMPTY,
    FULL,
    KEYS,
    ME,
    OTHER,
    OWNER,
    batch,
    content,
    epochs,
    postgres,
    turn,
    whole,
)

Opener = Callable[[], Backend]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the test's own state, after it was closed."""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.url("postgres", user=server.new_user())
    with contextlib.ExitStack() as last:

        def opened() -> Backend:
            last.close()
            sqlite = request.param == "sqlite"
            backend: Backend = Sqlite(tmp_path / "state.db") if sqlite else postgres(url)
            last.callback(backend.close)
            return backend

        yield opened


@pytest.fixture
def backend(opened: Opener) -> Backend:
    return opened()


@pytest.fixture
def held(backend: Backend) -> dict[tuple[str, str], int]:
    """The epochs of a replica that holds two workflows."""
    return epochs(turn(backend, wanted=(OWNER, OTHER)))


Held = dict[tuple[str, str], int]


def instance(id_: str) -> RecordKey:
    return "instances", OWNER, id_


class TestContent:
    def test_what_was_written_is_there_after_a_restart(
        self, opened: Opener, backend: Backend, held: Held
    ) -> None:
        backend.write(batch(leases=held), now=0)
        assert content(opened()) == FULL

    def test_the_newest_value_stands(self, backend: Backend, held: Held) -> None:
        for value in (b"1", b"2"):
            backend.write(batch(value, leases=held), now=0)
        assert content(backend) == whole(b"2")

    def test_none_deletes(self, backend: Backend, held: Held) -> None:
        backend.write(batch(leases=held), now=0)
        backend.write(Batch(dict.fromkeys(KEYS), held), now=0)
        assert content(backend) == EMPTY

    def test_each_table_of_each_owner_has_its_own(self, backend: Backend, held: Held) -> None:
        keys = [(table, owner, "a") for table in TABLES for owner in (OWNER, OTHER)]
        rows = {key: StoredRow(repr(key).encode()) for key in keys}
        backend.write(Batch(rows, held), now=0)
        for table, owner, id_ in keys:
            assert list(backend.records(table, owner)) == [(id_, rows[table, owner, id_].data)]

    def test_instances_come_in_slices(self, backend: Backend, held: Held) -> None:
        ids = sorted(f"{prefix}-{n}" for n in range(5) for prefix in ("order", "Ä", "*/5 * *", "_"))
        rows = {instance(id_): StoredRow(id_.encode()) for id_ in reversed(ids)}
        backend.write(Batch(rows, held), now=0)
        found, after = list[str](), ""
        while page := list(backend.watched(OWNER, after, 3)):
            assert all(data == id_.encode() for id_, data in page)
            found += [id_ for id_, _ in page]
            after = found[-1]
        assert found == ids

    def test_what_is_not_watched_is_found_by_its_id(self, backend: Backend, held: Held) -> None:
        rows: dict[RecordKey, StoredRow] = {
            instance("removed"): StoredRow(b"1", last_watched=100.0),
            instance("watched"): StoredRow(b"3"),
            ("instances", OTHER, "other"): StoredRow(b"4"),
        }
        backend.write(Batch(rows, held), now=0)
        assert list(backend.watched(OWNER, "", 9)) == [("watched", b"3")]
        ids = ("removed", "watched", "other", "unknown")
        found = {"removed": b"1", "watched": b"3"}
        assert dict(backend.by_ids("instances", OWNER, ids)) == found
        backend.write(Batch({instance("removed"): StoredRow(b"5")}, held), now=0)
        watched = [("removed", b"5"), ("watched", b"3")]
        assert list(backend.watched(OWNER, "", 9)) == watched

    def test_what_is_not_watched_expires(self, backend: Backend, held: Held) -> None:
        rows: dict[RecordKey, StoredRow] = {
            instance("removed"): StoredRow(b"", last_watched=100.0),
            instance("removed later"): StoredRow(b"", last_watched=101.0),
            instance("watched"): StoredRow(b""),
            ("instances", OTHER, "removed"): StoredRow(b"", last_watched=100.0),
        }
        backend.write(Batch(rows, held), now=0)
        backend.write(Batch({}, held, {OWNER: 100.5}), now=0)
        found = {id_ for id_, _ in backend.records("instances", OWNER)}
        assert found == {"removed later", "watched"}
        assert dict(backend.records("instances", OTHER)) == {"removed": b""}

    def test_thousands_of_rows_in_one_batch(self, backend: Backend, held: Held) -> None:
        rows = {instance(f"{n:05}"): StoredRow(b"x") for n in range(5001)}
        backend.write(Batch(rows, held), now=0)
        assert len(list(backend.watched(OWNER, "", 9999))) == 5001
        backend.write(Batch(dict.fromkeys(rows), held), now=0)
        assert list(backend.watched(OWNER, "", 9999)) == []

    def test_bytes_and_text_come_back_as_they_were(self, backend: Backend, held: Held) -> None:
        data, id_ = bytes(range(256)), r'["runs_total", "\u0000 \ud83d", "{}", "é"]'
        backend.write(Batch({("series", OWNER, id_): StoredRow(data)}, held), now=0)
        assert list(backend.records("series", OWNER)) == [(id_, data)]

    def test_a_batch_is_written_whole_or_not_at_all(self, backend: Backend, held: Held) -> None:
        backend.write(batch(leases=held), now=0)
        data: Any = object()
        broken = batch(b"2", leases=held)
        with pytest.raises(Exception, match="object"):
            backend.write(
                broken._replace(rows={**broken.rows, ("series", OWNER, "[]"): StoredRow(data)}),
                now=0,
            )
        assert content(backend) == FULL
        backend.write(batch(b"3", leases=held), now=0)
        assert content(backend) == whole(b"3")

    def test_workflows_that_nobody_watches_expire(self, backend: Backend, held: Held) -> None:
        backend.write(batch(leases=held), now=0)
        turn(backend, wanted=(OTHER,), released=(OWNER,))
        backend.expire(after=3600, now=3600)
        assert content(backend) == FULL
        backend.expire(after=-1, now=0)
        assert content(backend) == EMPTY

    def test_what_is_held_never_expires(self, backend: Backend, held: Held) -> None:
        backend.write(batch(leases=held), now=0)
        backend.expire(after=-1, now=0)
        assert content(backend) == FULL


class TestTurns:
    def test_the_only_replica_has_all_that_it_wants(self, backend: Backend) -> None:
        use = BudgetUse(limit=600, share=0.0, spent=(7,), demand=900.0, blocked=0.0)
        seen = turn(backend, wanted=(OWNER, OTHER), budgets={"acc": use})
        assert seen.replicas == [ME]
        assert {owner: lease.replica for owner, lease in seen.leases.items()} == {
            OWNER: ME,
            OTHER: ME,
        }
        assert seen.budgets["acc"].share >= 600
        assert seen.budgets["acc"].peers_spent == 0

    def test_what_is_held_stays_held_at_the_same_epoch(self, backend: Backend, held: Held) -> None:
        backend.write(batch(leases=held), now=0)
        assert epochs(turn(backend, wanted=(OWNER, OTHER))) == held
