"""Run tracking and versioned predictors in MLflow."""
