"""Cloudflare's API: requests, responses, errors and rate limits. It knows nothing of metrics."""
