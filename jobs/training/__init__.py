"""Training of the LoRA predictor with Ray Train and DeepSpeed."""
