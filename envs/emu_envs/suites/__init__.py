"""One file per suite of tasks, on a common base; the simulators are imported by what needs them."""
