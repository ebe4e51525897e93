"""Programs that measure the exporter; `python -m benchmarks.NAME --help` says what one prints."""

import argparse


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser of a benchmark's options, whose help is the docstring of its module."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
