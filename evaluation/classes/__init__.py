"""Rules of single classes of crystals: what makes a zeolite, a perovskite or a carbon one."""
