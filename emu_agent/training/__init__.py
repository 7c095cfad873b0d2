"""Training: one plain loop, and a stage for each part of the model."""
