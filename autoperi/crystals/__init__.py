"""Crystals and what symmetry fixes of them: genes, lattices, graphs, hulls. No network and no file format."""
