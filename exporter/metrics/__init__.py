"""Metrics: the catalogue, the values, and the exposition that scrapes see."""
