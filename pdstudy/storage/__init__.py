"""What is on disk: paths, atomic file writes, the store of artifacts and its maintenance, the tables of results."""
