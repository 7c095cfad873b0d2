"""The action head: its parts, its data, its training stage."""
