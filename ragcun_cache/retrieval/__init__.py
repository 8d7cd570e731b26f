"""Retrieval: vectors and ids in, ranked lists out. Knows nothing of qrels."""
