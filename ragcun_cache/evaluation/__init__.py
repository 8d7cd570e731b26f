"""Evaluation: the contract that turns a run and qrels into figures that can be compared. See docs/evaluation.md."""
