"""How to see: image encoders. Imports nothing from worldmodel."""
