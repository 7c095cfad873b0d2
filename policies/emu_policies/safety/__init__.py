"""The gate between policy and robot."""
