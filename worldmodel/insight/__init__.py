"""How to look inside a trained model."""
