"""Training: the generic loop, the generator's stages, recipes, model cards."""
