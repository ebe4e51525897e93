"""Checks that run in Node.js: schemas of custom resources, and TypeScript's compiler."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from demo.node_packages import install, node

HERE = Path(__file__).parent


class Validator:
    """Validates objects of the Prometheus operator and of the Gateway API by their own schemas."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def problems(self, value: Mapping[str, Any]) -> list[str]:
        """What is wrong with an object; unknown fields don't count (see `type_errors`)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()
        found: list[str] = json.loads(self._process.stdout.readline())
        return found


@contextmanager
def validator() -> Iterator[Validator]:
    """A running validator."""
    install(HERE)
    with subprocess.Popen(
        [node(), "validate.mjs"],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Validator(process)


class Typed(NamedTuple):
    """A value and the type that it should have, an expression of TypeScript."""

    type: str
    value: Any


# Enumerations as the values they stand for, which is what JSON has.
_PLAIN = """
type Plain<T> = unknown extends T ? T
  : T extends string ? `${T}`
  : T extends number ? (`${T}` extends `${infer N extends number}` ? N : number)
  : T extends (infer E)[] ? Plain<E>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> }
  : T;
"""


def type_errors(values: Iterable[Typed]) -> str:
    """What TypeScript's compiler says of values written as literals of their types.

    A literal may have no field that its type lacks.
    """
    install(HERE)
    lines = [
        f"export const value{number}: Plain<{value.type}> = {json.dumps(value.value, indent=1)};"
        for number, value in enumerate(values)
    ]
    with tempfile.TemporaryDirectory(dir=HERE / "node_modules", prefix=".types-") as folder:
        source = Path(folder) / "values.mts"
        source.write_text(_PLAIN + "\n".join(lines))
        config = {"extends": str(HERE / "tsconfig.json"), "files": [source.name]}
        (Path(folder) / "tsconfig.json").write_text(json.dumps(config))
        compiler = HERE / "node_modules" / "typescript" / "bin" / "tsc"
        done = subprocess.run(
            [node(), compiler, "--project", folder, "--pretty", "false"],
            # By default the compiler caches its code in the folder of temporary files.
            env={**os.environ, "NODE_COMPILE_CACHE": str(HERE / "node_modules" / ".compiled")},
            check=False,
            capture_output=True,
            text=True,
        )
    return done.stdout + done.stderr
