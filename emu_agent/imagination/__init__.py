"""The imagination engine, and what it imagines."""
