"""The token model: one transformer over text, image and action tokens, its cache and its files."""
