"""Polymers: chains of repeat units written as SMILES, wound to helices and packed to crystals."""
