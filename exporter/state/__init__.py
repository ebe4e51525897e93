"""What outlives a restart, in SQLite or PostgreSQL."""
