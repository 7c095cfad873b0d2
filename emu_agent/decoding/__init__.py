"""Turning the token model's predictions into step texts and keyframes."""
