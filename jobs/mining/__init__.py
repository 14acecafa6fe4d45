"""Mining of style pairs from captioned images with Ray Data."""
