"""Candidates for training lists, from dense search, BM25 and their fusion; and the lists that are made of them."""
