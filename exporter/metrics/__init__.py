"""From values and observations to what `/metrics` shows."""
