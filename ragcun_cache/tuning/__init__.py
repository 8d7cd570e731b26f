"""Tuning: what the cached vectors of one collection can give, chosen on dev queries, tested once."""
