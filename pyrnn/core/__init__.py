"""What all rooms stand on: checks and their messages, parameters and models, pullbacks, files."""
