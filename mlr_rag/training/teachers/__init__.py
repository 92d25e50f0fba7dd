"""What says how relevant a passage is, and the cache of what they said."""
