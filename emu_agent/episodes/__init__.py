"""Episodes in environments: the one loop, recording, and who runs it."""
