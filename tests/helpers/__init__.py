"""What several test files share; ``pythonpath = ["tests"]`` makes it importable."""
