"""Facts about crystals that metrics are made of: symmetry, matches, descriptions, references, baselines."""
