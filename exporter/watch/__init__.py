"""Watching: which workflows and instances are polled, when, and in which order."""
