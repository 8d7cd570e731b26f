"""Training heads from cached vectors. Importing this package does not load torch."""
