"""What an encoder is worth: trained from scratch, pretrained and frozen, tuned, or frozen without training."""
