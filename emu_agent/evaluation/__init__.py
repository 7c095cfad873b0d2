"""Numbers about imagined pictures and finished episodes."""
