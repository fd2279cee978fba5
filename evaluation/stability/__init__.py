"""Stability: energies above a hull, its element references, the S.U.N. protocols."""
