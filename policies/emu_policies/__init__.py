"""Policies: what turns observations and imaginations into actions."""
