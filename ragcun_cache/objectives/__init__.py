"""Losses, one a file: pure functions of tensors, with their formula and source."""
