"""Encode a corpus once with a frozen sentence encoder, then train and evaluate heads on the cached vectors.

Data flows one way through the packages:
``collections`` → ``encoder`` → ``cache`` → ``heads``/``objectives``/``training`` → ``retrieval`` → ``evaluation``.
"""

__version__ = "0.1.0"
