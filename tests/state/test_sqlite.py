"""The state file itself: what it survives, and what it refuses."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.state.backend import InUse, Replica, StoredRow, Turn, Unusable
from exporter.state.sqlite import Sqlite
from tests.disk import full
from tests.state.backends import EMPTY, FULL, OWNER, batch, content, whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def written(path: Path) -> Path:
    database = Sqlite(path)
    database.write(batch(), now=0)
    database.close()
    return path


class TestContent:
    def test_memory_holds_what_a_file_would(self) -> None:
        database = Sqlite(None)
        database.write(batch(), now=0)
        assert content(database) == FULL
        assert database.is_there
        database.close()

    def test_a_workflow_expires_whole_or_not_at_all(self, path: Path) -> None:
        database = Sqlite(written(path))
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute(
                "CREATE TRIGGER stop BEFORE DELETE ON series BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        with pytest.raises(sqlite3.IntegrityError):
            database.expire(after=10, now=11)
        assert content(database) == FULL
        database.close()

    def test_its_log_shrinks_again_after_a_large_transaction(self, path: Path) -> None:
        database, log = Sqlite(path), Path(f"{path}-wal")
        large = StoredRow(bytes(20 << 20))
        database.write(batch()._replace(rows={("series", OWNER, "large"): large}), now=0)
        assert log.stat().st_size > 20 << 20
        database.write(batch(), now=0)
        assert log.stat().st_size <= 16 << 20
        database.close()

    @pytest.mark.parametrize("name", [":memory:", "file:state?mode=memory"])
    def test_a_name_that_sqlite_knows_is_a_name_like_any_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        database = Sqlite(written(Path(name)))
        assert content(database) == FULL
        database.close()

    def test_only_its_owner_may_read_it(self, path: Path) -> None:
        assert written(path).stat().st_mode & 0o077 == 0


class TestSharing:
    @pytest.mark.process
    def test_a_second_exporter_is_refused(self, path: Path) -> None:
        database = Sqlite(path)
        script = (
            "import sys; from pathlib import Path; from exporter.state.sqlite import *\n"
            "try: Sqlite(Path(sys.argv[1]))\n"
            "except InUse as error: print(error)"
        )
        said = subprocess.run(
            [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
        )
        assert said.stdout == f"{path} is in use by another exporter\n"
        database.close()

    def test_once_the_first_has_closed_it_the_next_may(self, path: Path) -> None:
        Sqlite(path).close()
        Sqlite(path).close()

    def test_in_one_process_too(self, path: Path) -> None:
        database = Sqlite(path)
        with pytest.raises(InUse):
            Sqlite(path)
        database.close()

    def test_by_a_symbolic_link_too(self, path: Path) -> None:
        database = Sqlite(path)
        link = path.with_name("link.db")
        link.symlink_to(path)
        with pytest.raises(InUse):
            Sqlite(link)
        database.close()

    def test_another_process_may_read_it_meanwhile(self, path: Path) -> None:
        database = Sqlite(path)
        with contextlib.closing(sqlite3.connect(path)) as reader, reader:
            database.write(batch(), now=0)
            assert reader.execute("SELECT count(*) FROM instances").fetchone() == (1,)
        reader.close()
        database.close()

    @pytest.mark.slow
    def test_a_lock_that_stays_is_an_error_and_over_when_it_is(self, path: Path) -> None:
        database = Sqlite(path)
        other = sqlite3.connect(path)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database.write(batch(), now=0)
        other.close()
        database.write(batch(), now=0)
        assert content(database) == FULL
        database.close()


class TestTurns:
    def test_a_disk_that_is_full_takes_no_lease_away(self, path: Path) -> None:
        database = Sqlite(written(path))
        turn = Turn(Replica("a-1", "a", ""), 30.0, wanted=[OWNER], released=[], budgets={})
        with full(path):
            with pytest.raises(sqlite3.Error):
                database.write(batch(bytes(1 << 20)), now=0)
            assert list(database.take_turn(turn).leases) == [OWNER]
        database.close()


class TestNoRoomForItsLog:
    def test_it_can_be_read_and_is_written_again_once_there_is_room(self, path: Path) -> None:
        written(path)
        with full(path):
            database = Sqlite(path)
            assert content(database) == FULL
            for _ in range(2):
                with pytest.raises(sqlite3.OperationalError, match="readonly"):
                    database.write(batch(b"new"), now=0)
            assert content(database) == FULL
        with pytest.raises(sqlite3.OperationalError):
            database.write(batch(b"new"), now=0)
        database.write(batch(b"new"), now=0)
        database.close()
        with contextlib.closing(Sqlite(path)) as reopened:
            assert content(reopened) == whole(b"new")


def cut(path: Path) -> None:
    os.truncate(path, 3000)


def garbage_inside(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def not_a_database(path: Path) -> None:
    path.write_bytes(b"no database at all " * 1000)


def broken_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"SQLite format 9")


class TestDamage:
    """Each kind is set aside, never deleted, and an empty file begun."""

    @pytest.mark.parametrize("damage", [cut, garbage_inside, not_a_database, broken_header])
    def test_found_when_it_is_opened(self, path: Path, damage: object) -> None:
        damage(written(path))  # type: ignore[operator]
        damaged = path.read_bytes()
        database = Sqlite(path)
        assert content(database) == EMPTY
        assert database.set_aside is not None
        assert database.set_aside.read_bytes() == damaged
        assert database.set_aside.name.startswith("state.db.damaged-")
        database.write(batch(), now=0)
        database.close()
        database = Sqlite(path)
        assert (content(database), database.set_aside) == (FULL, None)
        database.close()

    def test_an_empty_file_is_begun(self, path: Path) -> None:
        path.touch()
        database = Sqlite(path)
        assert (content(database), database.set_aside) == (EMPTY, None)
        database.close()

    def test_it_is_distinguished_from_what_may_pass(self) -> None:
        damaged, locked = sqlite3.DatabaseError(), sqlite3.OperationalError()
        damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        locked.sqlite_errorcode = sqlite3.SQLITE_BUSY
        assert (Sqlite.is_damage(damaged), Sqlite.is_damage(locked)) == (True, False)

    def test_a_torn_log_loses_only_the_transaction_it_tears(self, path: Path) -> None:
        database = Sqlite(path)
        database.write(batch(), now=0)
        database.write(batch(b"2"), now=0)
        log, copy = Path(f"{path}-wal"), path.with_name("copy.db")
        copy.write_bytes(path.read_bytes())
        copy.with_name("copy.db-wal").write_bytes(log.read_bytes()[:-100])
        database.close()
        survivor = Sqlite(copy)
        assert content(survivor) == FULL
        survivor.close()


class TestRefusals:
    """What is refused is left as it is."""

    def test_a_newer_version(self, path: Path) -> None:
        with contextlib.closing(sqlite3.connect(written(path))) as connection, connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        before = path.read_bytes()
        with pytest.raises(Unusable, match="of version 99, from a newer exporter; this one knows"):
            Sqlite(path)
        assert path.read_bytes() == before

    def test_a_version_that_was_never_released(self, path: Path) -> None:
        """Its tables have the names of today's, and other columns."""
        with contextlib.closing(sqlite3.connect(written(path))) as connection, connection:
            connection.execute("PRAGMA user_version = 1")
        with pytest.raises(Unusable, match="of version 1, which was never released; delete it"):
            Sqlite(path)

    def test_a_database_of_something_else(self, path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE customers (name)")
        connection.close()
        with pytest.raises(Unusable, match="an SQLite database of something else"):
            Sqlite(path)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(Unusable, match="Is a directory"):
            Sqlite(tmp_path)

    def test_a_folder_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(Unusable, match="No such file or directory"):
            Sqlite(tmp_path / "none" / "state.db")

    def test_a_path_that_cannot_even_be_looked_for(self, tmp_path: Path) -> None:
        """As in a folder that this user may not enter, which root may."""
        with pytest.raises(Unusable, match="File name too long"):
            Sqlite(tmp_path / ("n" * 300))

    def test_it_can_be_opened_again_when_it_was_put_right(self, path: Path) -> None:
        path.mkdir()
        with pytest.raises(Unusable):
            Sqlite(path)
        path.rmdir()
        Sqlite(path).close()


class TestReplacement:
    def test_a_deleted_file_is_noticed(self, path: Path) -> None:
        database = Sqlite(path)
        found = [database.is_there]
        path.unlink()
        found.append(database.is_there)
        database.renew()
        database.write(batch(), now=0)
        found.append(database.is_there)
        assert found == [True, False, True]
        assert content(database) == FULL
        database.close()

    def test_a_file_put_in_its_place_is_set_aside(self, path: Path) -> None:
        database = Sqlite(path)
        os.replace(written(path.with_name("other.db")), path)
        assert not database.is_there
        database.renew()
        assert database.set_aside is not None
        assert content(database) == EMPTY
        database.close()
