"""A corpus of configuration files: bad ones begin with the messages that they must get."""

import os
from pathlib import Path
from threading import Thread

import pytest

from exporter.config import load as config
from exporter.config.errors import ConfigError

HERE = Path(__file__).parent


def files(folder: str) -> list[Path]:
    return sorted((HERE / folder).glob("*.yaml"))


@pytest.mark.parametrize("path", files("bad"), ids=lambda path: path.stem)
def test_a_bad_file_gets_exactly_its_messages(path: Path, no_environment: None) -> None:
    """Each problem with its path, all at once, and never a secret (`hidden` in these files)."""
    head = [line for line in path.read_text().splitlines() if line.startswith("# wrong: ")]
    with pytest.raises(ConfigError) as caught:
        config.load(path, {}, os.environ)
    expected = [line.removeprefix("# wrong: ").replace("{file}", str(path)) for line in head]
    assert caught.value.problems == expected
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("path", files("good"), ids=lambda path: path.stem)
def test_a_good_file_loads(path: Path, no_environment: None) -> None:
    """And shows no secret when it is printed."""
    assert "hidden" not in repr(config.load(path, {}, os.environ))


def refused(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load(path, {}, {})
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.yaml") == ["can't be read: No such file or directory"]


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert refused(tmp_path) == ["can't be read: Is a directory"]


def test_a_pipe_can_be_read_at_the_start_and_blocks_no_reload(tmp_path: Path) -> None:
    """As `sops exec-file` hands over what it has decrypted."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    Thread(target=pipe.write_bytes, args=[(HERE / "bad/accounts-null.yaml").read_bytes()]).start()
    with pytest.raises(ConfigError, match="accounts: is missing"):
        config.load(pipe, {}, {}, pipe=True)
    assert refused(pipe) == ["can't be read: Not a regular file"]


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_file(device: str) -> None:
    assert refused(Path(device)) == ["can't be read: Not a regular file"]


def test_an_empty_file_lacks_the_accounts(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.touch()
    assert refused(path) == ["accounts: is missing"]


def test_a_file_must_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin-1.yaml"
    path.write_bytes("poll: {}\n# für\n".encode("latin-1"))
    assert refused(path) == ["line 2: not UTF-8; save it in that encoding"]


def test_a_byte_order_mark_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "mark.yaml"
    path.write_text("poll: {}\n", encoding="utf-8-sig")
    assert refused(path) == ["accounts: is missing"]


@pytest.mark.slow
def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("accounts: " + "[" * 5000 + "]" * 5000)
    assert refused(path) == ["nested too deeply"]


def test_aliases_that_multiply_cost_nothing(tmp_path: Path) -> None:
    """A billion values in ten lines are refused like any other wrong value."""
    path = tmp_path / "laughs.yaml"
    lines = ["a0: &a0 [x, x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)
    ]
    path.write_text("\n".join([*lines, "accounts: *a9"]))
    assert len(refused(path)) == 20  # ten unknown keys, ten accounts that are lists


def test_merges_that_multiply_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "merges.yaml"
    lines = ["a0: &a0 {x: 1}"] + [
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10)
    ]
    path.write_text("\n".join(lines))
    assert len(refused(path)) == 11  # ten unknown keys, and no accounts
