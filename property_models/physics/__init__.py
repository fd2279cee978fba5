"""Energies, forces and stresses of crystals; losses and guidance made of them.

All of it is differentiable in (s, ℓ, h): positions and cell through ``CrystalBatch``, the chemical latent h
through soft species, a weight for every element on every site.
"""
