"""Trains the shipped tiny models on stylegrid: VAE, text-to-image backbone, classifier."""
