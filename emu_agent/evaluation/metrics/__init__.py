"""Metrics of imagined futures: pure functions on arrays, and the table that says what each of them means."""
