"""What lies on disk: paths, files written whole, the store of artifacts and its care, the tables of results."""
