"""Relaxation by a potential: batched, symmetry-reduced, resumable."""
