"""What a PromQL query is made of."""

from collections.abc import Iterable, Iterator

import promql_parser

from exporter.metrics.catalogue import Family


def metrics_of(query: str) -> set[str]:
    """The metrics that a query reads.

    Raises:
        ValueError: it is no PromQL.
    """
    return set(_selected(promql_parser.parse(query)))


def _selected(node: object) -> Iterator[str]:
    match node:
        case promql_parser.VectorSelector():
            yield node.name or ""
        case promql_parser.MatrixSelector():
            yield from _selected(node.vector_selector)
        case promql_parser.BinaryExpr():
            yield from _selected(node.lhs)
            yield from _selected(node.rhs)
        case promql_parser.Call():
            for argument in node.args:
                yield from _selected(argument)
        case promql_parser.AggregateExpr():
            yield from _selected(node.expr)
            yield from _selected(node.param)
        case promql_parser.ParenExpr() | promql_parser.SubqueryExpr() | promql_parser.UnaryExpr():
            yield from _selected(node.expr)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral() | None:
            return
        case _:
            raise TypeError(f"unknown part of a query: {node!r}")


def catalogued(families: Iterable[Family]) -> set[str]:
    """The names of the samples that these families have."""
    names: set[str] = set()
    for family in families:
        suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
        names |= {family.name + suffix for suffix in suffixes}
    return names
