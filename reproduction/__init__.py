"""The published table from cached vectors: ``python -m reproduction`` writes ``docs/reproduction.md`` from results."""
