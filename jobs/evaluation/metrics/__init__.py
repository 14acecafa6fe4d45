"""One file a metric; all take batched tensors and return one value a sample."""
