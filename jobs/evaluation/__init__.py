"""Evaluation of a predictor and the promotion gate."""
