"""Four-connected frameworks: nets of tetrahedral sites, their oxygen bridges, distance least squares."""
