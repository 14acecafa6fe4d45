"""Distributed jobs: mining, training, evaluation and the model registry."""
