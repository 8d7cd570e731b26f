"""Speed, measured beside named peers: ``python -m benchmarks [NAME …]`` writes ``docs/benchmarks.md``."""
