"""Cloudflare's API: its answers, its errors, its limits. Knows nothing of metrics."""
