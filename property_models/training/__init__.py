"""Training of property models: ensembles, tables of one's own, search, cards."""
