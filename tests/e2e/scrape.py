"""What `/metrics` shows, by name and labels, so that whole sets of samples can be compared."""

from functools import lru_cache

from prometheus_client.parser import text_string_to_metric_families

from exporter.app import App

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by the sample's name and its labels."""


def samples(exposition: str, prefix: str | tuple[str, ...] = "") -> Samples:
    """The samples of names that start with `prefix`, or with one of several; each comes once."""
    found: Samples = {}
    for line in exposition.split("\n"):
        if line.startswith(prefix):
            for key, value in _samples(line):
                assert key not in found, f"{key} is there twice"
                found[key] = value
    return found


@lru_cache(10_000)  # from one scrape to the next, most lines stay
def _samples(line: str) -> list[tuple[tuple[str, frozenset[tuple[str, str]]], float]]:
    return [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(line)
        for sample in family.samples
    ]


def scrape(app: App, prefix: str = "") -> Samples:
    """The same of an exporter in this process."""
    body, _ = app.exposition.render()
    return samples(body.decode(), prefix)


def value(found: Samples, name: str, **labels: str) -> float:
    """The one sample of that name which has these labels among its own.

    Raises:
        AssertionError: there is none, or more than one.
    """
    matching = [v for (n, own), v in found.items() if n == name and labels.items() <= own]
    assert len(matching) == 1, f"{len(matching)} samples {name} with {labels}"
    return matching[0]


def differences(actual: Samples, expected: Samples) -> list[str]:
    """What is missing, too much or of another value, a line each.

    Values are exact but for sums, where the order of addition shows in the last digits.
    """
    lines = []
    for key in sorted(actual.keys() | expected.keys(), key=lambda k: (k[0], sorted(k[1]))):
        name, labels = key
        got, wanted = actual.get(key), expected.get(key)
        if got is not None and wanted is not None and name.endswith("_sum"):
            equal = abs(got - wanted) <= 1e-9 * abs(wanted)
        else:
            equal = got == wanted
        if not equal:
            lines.append(f"{name}{dict(sorted(labels))}: {got}, expected {wanted}")
    return lines
