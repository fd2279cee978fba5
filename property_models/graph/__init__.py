"""Crystals as graphs of symmetry-distinct sites: bonds, features of nodes and edges, read-outs."""
