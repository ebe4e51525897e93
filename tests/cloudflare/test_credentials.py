"""Secrets: as they are, or from files that are read again whenever they change."""

import os
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from exporter.cloudflare.credentials import Credential

ODD = "holds characters that no API token or key has, such as quotes or spaces"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


class TestFiles:
    def test_white_space_around_it_is_no_part_of_it(self, file: Path) -> None:
        file.write_text("\n  first \r\n")
        assert Credential(file).reveal() == "first"

    def test_nor_is_a_byte_order_mark(self, file: Path) -> None:
        """Which PowerShell, for one, writes."""
        file.write_text("first\n", encoding="utf-8-sig")
        assert Credential(file).reveal() == "first"

    def test_a_new_content_is_used_at_once(self, file: Path) -> None:
        credential = Credential(file)
        file.write_text("second")
        assert credential.reveal() == "second"

    def test_a_file_that_is_replaced_is_read_again(self, file: Path, tmp_path: Path) -> None:
        """As Kubernetes does it: a new file is renamed over the old one, of the same size."""
        credential = Credential(file)
        (tmp_path / "new").write_text("other\n")
        os.replace(tmp_path / "new", file)
        assert credential.reveal() == "other"

    def test_without_the_file_the_last_one_stays(self, file: Path) -> None:
        credential = Credential(file)
        file.unlink()
        assert credential.reveal() == "first"
        file.write_text("third")
        assert credential.reveal() == "third"

    @pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff\xfe", b"a\x00b"])
    def test_while_it_is_half_written_the_last_one_stays(self, file: Path, content: bytes) -> None:
        credential = Credential(file)
        file.write_bytes(content)
        assert credential.reveal() == "first"
        file.write_bytes(b"complete")
        assert credential.reveal() == "complete"

    def test_one_that_is_not_there_at_first_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Credential(tmp_path / "none")

    def test_a_directory_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(IsADirectoryError):
            Credential(tmp_path)

    def test_a_pipe_or_a_device_is_an_error_at_any_time(self, file: Path) -> None:
        with pytest.raises(OSError, match="Not a regular file"):
            Credential(Path("/dev/null"))
        credential = Credential(file)
        file.unlink()
        file.symlink_to("/dev/null")
        assert credential.reveal() == "first"
        assert credential.problem == f"{file}: Not a regular file"

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b" \n", "is empty; an API token or key is expected"),
            (b"hidden hidden", ODD),
            (b"hidden\nhidden", ODD),
            (b'"hidden"', ODD),
            (b"CLOUDFLARE_API_TOKEN=hidden", ODD),
            (b"hidden\xff", ODD),
            ("hiddén".encode(), ODD),
        ],
    )
    def test_a_wrong_one_is_named_and_not_repeated(
        self, file: Path, content: bytes, problem: str
    ) -> None:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{problem}$"):
            Credential(file)


class TestValues:
    @pytest.mark.parametrize("value", ["  ", "two words", "line\nline", "schlüssel"])
    def test_what_cannot_stand_in_a_header_is_refused_unseen(self, value: str) -> None:
        with pytest.raises(ValueError, match="API token or key") as caught:
            Credential(SecretStr(value))
        assert not value.strip() or value not in str(caught.value)


class TestCredential:
    def test_a_rotated_token_goes_out_with_the_next_request(self, file: Path) -> None:
        credential = Credential(file)
        sent = []
        for token in ("first", "second"):
            file.write_text(token)
            request = httpx.Request("GET", "https://api.example.com")
            next(credential.auth_flow(request))
            sent.append(request.headers["authorization"])
        assert sent == ["Bearer first", "Bearer second"]

    def test_tokens_and_keys_are_scrubbed(self) -> None:
        assert Credential(SecretStr("tok")).scrub("a tok b tok") == "a *** b ***"
        assert Credential(SecretStr("key"), email="a@b").scrub("key!") == "***!"
        assert Credential().scrub("as it is") == "as it is"

    def test_the_one_that_was_sent_is_scrubbed_though_its_file_has_changed(
        self, file: Path
    ) -> None:
        credential = Credential(file)
        file.write_text("second")
        assert credential.scrub("bad token: first") == "bad token: ***"

    def test_it_shows_no_secret(self, file: Path) -> None:
        credential = Credential(file)
        assert "first" not in repr(credential) + str(credential)
