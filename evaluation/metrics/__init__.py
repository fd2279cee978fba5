"""Metrics, one family a file: validity, divergence, breadth, coverage, reconstruction, prediction."""
