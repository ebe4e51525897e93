"""Replaces the generated sections of files that are otherwise written by hand."""

import re
from collections.abc import Iterable


def updated(page: str, section: str, text: str) -> str:
    """The page with `text` between the two comments of the section.

    Raises:
        ValueError: the page has no such section.
    """
    begin, end = f"{section}: made by make docs", f"end of {section}"
    pattern = re.compile(
        rf"(?P<begin>^<!-- {begin} -->\n|^\# {begin}\n).*?(?P<end>^<!-- {end} -->|^\# {end}\n)",
        re.DOTALL | re.MULTILINE,
    )

    def filled(match: re.Match[str]) -> str:
        blank = "\n" if match["begin"].startswith("<") else ""
        return f"{match['begin']}{blank}{text}\n{blank}{match['end']}"

    new, found = pattern.subn(filled, page)
    if not found:
        raise ValueError(f"no <!-- {begin} --> … <!-- {end} -->")
    return new


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )
