"""Self-contained pages that show crystals: reports, galleries, notebooks."""
