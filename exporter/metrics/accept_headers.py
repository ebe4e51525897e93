"""The format and the compression of a scrape, as its Accept headers select them."""

from collections.abc import Collection, Iterable, Iterator


def prefers_openmetrics(accept: str) -> bool:
    """Whether an Accept header ranks OpenMetrics at least as high as the text format.

    Compares the most specific range that matches each of the two (RFC 9110, section 12.5.1). It is
    not preferred if only `*/*` matches OpenMetrics, as in browsers' requests.
    """
    ranges = list(_items(accept))
    _, text = _rank(ranges, "text/plain", ("", "0.0.4", "1.0.0"))
    specificity, openmetrics = _rank(ranges, "application/openmetrics-text", ("", "0.0.1", "1.0.0"))
    return specificity > 0 and openmetrics > 0 and openmetrics >= text


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110, section 12.5.3)."""
    qualities = {coding: quality for coding, _, quality in _items(accept_encoding)}
    return qualities.get("gzip", qualities.get("*", 0)) > 0


def _items(header: str) -> Iterator[tuple[str, str, float]]:
    """Name, version and quality of each item in a header; an invalid quality is 0."""
    for item in header.lower().replace(" ", "").split(","):
        name, *parameters = item.split(";")
        named = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            quality = float(named.get("q", "1"))
        except ValueError:
            quality = 0
        yield name, named.get("version", "").strip('"'), quality if 0 <= quality <= 1 else 0


def _rank(
    ranges: Iterable[tuple[str, str, float]], media: str, versions: Collection[str]
) -> tuple[int, float]:
    """How specifically ranges match a media type (0: by `*/*` or not at all), and its quality."""
    forms = ["*/*", f"{media.partition('/')[0]}/*", media]
    return max(
        (
            (forms.index(range_), quality)
            for range_, version, quality in ranges
            if range_ in forms and (range_ != media or version in versions)
        ),
        default=(0, 0.0),
    )
