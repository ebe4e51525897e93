"""Programs that measure the exporter; `python -m benchmarks.NAME --help` says what one prints."""

import argparse
import os
from pathlib import Path


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser of a benchmark's options, whose help is the docstring of its module."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def cpu_of(process: int) -> float:
    """CPU seconds that a process has used, by its id."""
    values = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
