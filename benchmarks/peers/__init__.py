"""The same work in other engines. Each program runs in an environment of its own and imports nothing of this project."""
