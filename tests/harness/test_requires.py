"""A test that needs a program the machine lacks is skipped, and fails in CI."""

import sys
from pathlib import Path

import pytest

from tests.requires import requires_program

REASON = "promtool is not installed: apt-get install prometheus"


@pytest.fixture
def path_without_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


class TestRequiresProgram:
    def test_a_program_that_is_there_is_returned_as_its_path(
        self, path_without_programs: Path
    ) -> None:
        program = path_without_programs / "promtool"
        program.symlink_to(sys.executable)
        assert requires_program("promtool", package="prometheus") == str(program)

    @pytest.mark.usefixtures("path_without_programs")
    def test_a_missing_one_skips_the_test_and_says_how_to_get_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CI", raising=False)
        with pytest.raises(pytest.skip.Exception, match=REASON):
            requires_program("promtool", package="prometheus")

    @pytest.mark.usefixtures("path_without_programs")
    def test_a_missing_one_fails_the_test_in_ci(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CI", "true")
        with pytest.raises(pytest.fail.Exception, match=REASON):
            requires_program("promtool", package="prometheus")
