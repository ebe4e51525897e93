"""What the metrics show: which series, names as values of labels, buckets of histograms."""

import itertools
import re
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from exporter.config.validation import Section, must


def _is_ascending(value: list[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(value))


class Rewrite(Section):
    regex: str
    """Regular expression, searched in the name."""
    replacement: Annotated[
        str,
        must(
            lambda text: not re.search(r"\$\{?[0-9]", text),
            r"write \1 for the first group; $1, as in Prometheus, stays as it is",
        ),
    ]
    r"""Replaces each match; \1 stands for the first group of the regex."""

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        try:
            re.sub(self.regex, self.replacement, "")
            f"{self.regex}{self.replacement}".encode()  # the state records them
        except (re.error, IndexError, OverflowError, UnicodeEncodeError) as error:
            raise ValueError(f"regex and replacement can't be used: {error}") from None
        return self


class Names(Section):
    """How names that customers choose become values of a label."""

    limit: int = Field(200, ge=1)
    """Maximum distinct names per workflow; the rest become `other`."""
    rewrite: list[Rewrite] = Field([])
    """Rules that rewrite names, applied in order."""


Bounds = Annotated[
    list[Annotated[FiniteFloat, Field(ge=0)]],
    Field(min_length=1),
    must(_is_ascending, "must be in ascending order, without repeats"),
]
"""Upper bounds of a histogram's buckets, in ascending order, without +Inf. Beside a negative one,
OpenMetrics allows no sum."""


class Buckets(Section):
    run_duration_seconds: Bounds = Field([1, 5, 15, 60, 300, 900, 3600, 14400, 86400, 604800])
    """In seconds."""
    queue_duration_seconds: Bounds = Field([0.1, 1, 5, 15, 60, 300, 900, 3600])
    """In seconds."""
    step_duration_seconds: Bounds = Field([0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 86400])
    """In seconds."""
    step_attempt_duration_seconds: Bounds = Field([0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600])
    """In seconds."""
    step_attempts: Bounds = Field([1, 2, 3, 4, 5, 8, 10, 20, 50])
    """In attempts."""


class Metrics(Section):
    instance_status: Literal["all", "current"] = "all"
    """Statuses that have a series for each instance: every known status, as 1 or 0, or only the
    current one."""
    instance_series: Literal["all", "unfinished", "none"] = "all"
    """Instances that have series; unfinished: all but complete and terminated."""
    backfill: bool | None = None
    """Count runs, steps and attempts that ended before the first poll. null: yes for configured
    instances, no for discovered ones."""
    created: bool = False
    """Expose in OpenMetrics when each counter and histogram began, as `_created`; Prometheus stores
    it as one more series of each."""
    step_names: Names = Names()
    """The label step."""
    error_names: Names = Names()
    """The label error_name."""
    buckets: Buckets = Buckets()
    """Upper bounds of the histogram's buckets."""
