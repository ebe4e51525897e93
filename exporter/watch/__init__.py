"""Watching: what to look at when, what changed, and what that adds to the counts."""
