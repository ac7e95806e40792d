"""Versions of the dataset: label them, list them, show what is in one, compare two."""
