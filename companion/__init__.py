"""The fraud-scoring system that the fifty answers talk about."""
