"""The configuration: read, checked and reloaded."""
