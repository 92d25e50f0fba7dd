"""Evaluation: judged collections, and how well a retriever does on them."""
