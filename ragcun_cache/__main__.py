"""``python -m ragcun_cache`` is the console script."""

from ragcun_cache.cli.main import main

main()
