"""What several test files share; imported as ``helpers.NAME``."""
