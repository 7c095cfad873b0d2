"""When to imagine, what to act on, and the policy that does it."""
