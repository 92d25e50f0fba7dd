"""Specializing: a model that is trained on the user's own documents, and kept only where it is surely better."""
