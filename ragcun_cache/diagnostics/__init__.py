"""Figures that tell what a head does to vectors: pure functions of arrays, with their formula and source."""
