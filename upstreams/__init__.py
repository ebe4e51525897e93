"""Upstreams that the exporter can be run and tested against without a Cloudflare account."""
