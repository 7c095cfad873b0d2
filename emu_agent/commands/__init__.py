"""One small file per command of `emu-agent`: each has `main(cfg)`, which returns the exit code."""
