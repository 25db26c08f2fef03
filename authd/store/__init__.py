"""What survives a restart: statements, chains, nonces and sessions in SQLite; keys in files."""
