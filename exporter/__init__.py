"""Prometheus exporter for Cloudflare Workflows instances."""

__version__ = "0.1.0"
