"""Crystals in files: readers, writers, public data sets, prepared arrays. No network."""
