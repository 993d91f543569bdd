"""The command line, and the models and galleries behind its commands."""
