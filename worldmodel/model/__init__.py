"""How the world works: the latent model."""
