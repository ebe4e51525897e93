"""Watching: what to poll when, what changed, and what that adds to the counts."""
