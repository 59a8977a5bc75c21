"""How data comes in: environments, replay, collector. Kept import-free: environment workers never load torch."""
