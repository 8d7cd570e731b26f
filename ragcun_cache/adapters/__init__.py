"""What is learnt from the judgements of one collection, from its cached vectors alone."""
