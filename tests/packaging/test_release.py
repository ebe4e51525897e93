"""What a release publishes can be built, and what can't be released is refused."""

import json
import zipfile
from pathlib import Path

import pytest

from exporter import __version__
from tools import release

CHANGELOG = """# Changelog

What changed.

## 0.2.0, unreleased

- News.

## 0.1.0, 2026-12-01

The first version.

- Counts.
  Each once.

## 0.0.1, 2026-11-01

"""


class TestNotes:
    def test_they_are_the_text_of_the_version(self) -> None:
        assert release.section(CHANGELOG, "0.1.0") == (
            "2026-12-01",
            "The first version.\n\n- Counts.\n  Each once.\n",
        )

    def test_the_next_version_has_no_date(self) -> None:
        assert release.section(CHANGELOG, "0.2.0") == ("unreleased", "- News.\n")

    @pytest.mark.parametrize("version", ["0.3.0", "0.0.1", "0.1", "0.1.00", "0x1.0"])
    def test_a_version_without_text_is_refused(self, version: str) -> None:
        with pytest.raises(release.ReleaseError, match="no text under a heading"):
            release.section(CHANGELOG, version)


class TestTag:
    def test_the_version_s_tag_with_a_date_is_taken(self) -> None:
        release.check_tag(f"v{__version__}", "2026-12-01")

    @pytest.mark.parametrize("tag", ["v9.9.9", __version__, "main"])
    def test_another_tag_is_refused(self, tag: str) -> None:
        with pytest.raises(release.ReleaseError, match=r"the tag is .*__init__\.py has"):
            release.check_tag(tag, "2026-12-01")

    def test_a_version_without_a_date_is_refused(self) -> None:
        with pytest.raises(release.ReleaseError, match="give it a date, as 2026-01-31"):
            release.check_tag(f"v{__version__}", "unreleased")


def test_files_that_are_missing_or_not_expected_are_named() -> None:
    with pytest.raises(release.ReleaseError, match=r"wheel: missing \['b'\], unexpected \['c'\]"):
        release.check_contents("wheel", ["a", "c"], ["a", "b"])


@pytest.mark.process
@pytest.mark.slow(15)
def test_everything_that_a_release_publishes_can_be_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But the image, which tests/image builds. It needs the package index."""
    assert release.main(["--no-image", f"--dist={tmp_path}"]) == 0, capsys.readouterr().err
    names = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {".gz", ".json", ".md", ".tgz", ".whl"}
    sbom = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert {"httpx", "pydantic"} <= {component["name"] for component in sbom["components"]}
    (wheel,) = tmp_path.glob("python/*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        readme = archive.read(name).decode()
    assert "](docs/" not in readme  # package indexes have no docs/


def test_a_tag_that_is_not_the_version_s_ends_it_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release.main(["--tag=v9.9.9", f"--dist={tmp_path}"]) == 1
    assert "error: the tag is v9.9.9" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
