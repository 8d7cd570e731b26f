"""Recipes: many training runs from a few lines of YAML, carried out once each, and evaluated side by side."""
