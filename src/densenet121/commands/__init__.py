"""One module a command: ``run(config)`` prints and returns the exit status."""
