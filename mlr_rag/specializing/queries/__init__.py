"""Generated queries: by a language model (`write_queries`), or, without one, by extraction (`extract_queries`)."""
