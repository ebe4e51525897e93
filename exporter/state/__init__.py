"""What outlives a restart: kept in SQLite."""
