"""From figures and observations to what `/metrics` shows."""
