"""Reading crystals of any generator."""
