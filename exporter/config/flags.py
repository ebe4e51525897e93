"""Every setting as a flag: `--poll.interval=5s`."""

import argparse
import difflib
from typing import Any, NoReturn, cast

from pydantic_settings import BaseSettings, CliSettingsSource

from exporter.config.settings import Key, Settings, leaves

_SHARED_NAMES = {"--web.config-file": "--web.config.file"}
"""Names that Prometheus' exporters share; those that follow from the key work too."""


class Parser(argparse.ArgumentParser):
    """Reports what is wrong in one line, and never shows the value of an unknown flag."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = unknown[0].partition("=")[0]
            if not flag.startswith("-"):
                self.error(f"unexpected {flag!r}; settings are given as --FLAG=VALUE")
            near = difflib.get_close_matches(flag, self._option_string_actions, n=1)
            self.error(f"unknown flag {flag}" + (f"; did you mean {near[0]}?" if near else ""))
        return options

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nsee {self.prog} --help\n")


def name(loc: Key) -> str:
    """The flag of a key."""
    own = "--" + ".".join(loc).replace("_", "-")
    return _SHARED_NAMES.get(own, own)


def add(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for every setting."""
    CliSettingsSource(
        cast("type[BaseSettings]", Settings),  # of which only the fields are read
        root_parser=parser,
        add_argument_method=_add_argument,
        cli_kebab_case=True,
        cli_parse_none_str="null",
    )


def _add_argument(group: Any, *names: str, **options: Any) -> None:
    if options["metavar"] == "JSON":
        return  # a whole section: its keys have flags
    if "bool" in options["metavar"]:
        options |= {"nargs": "?", "const": "true"}
    options.pop("action", None)  # of a list that is given twice, the last one counts
    shared = [_SHARED_NAMES[name] for name in names if name in _SHARED_NAMES]
    group.add_argument(*shared, *names, **options)


def given(namespace: argparse.Namespace) -> dict[Key, str]:
    """The settings that flags gave, by key."""
    flags = vars(namespace)
    return {loc: flags[dest] for loc, _ in leaves() if (dest := ".".join(loc)) in flags}
