"""The canary texts of a passport. Never change them: their vectors are stored with every collection."""

from __future__ import annotations

_TOPICS = (
    "The kettle on the stove began to sing before anyone in the kitchen was awake",
    "a bridge of pale stone crosses the river where the two old roads meet",
    "compound interest turns small, regular savings into a surprising sum",
    "the enzyme folds around its substrate and lets go of the product",
    "def total(prices): return sum(price.amount for price in prices if price.paid)",
    "glaciers grind the valley floor and leave long ridges of gravel behind",
    "the court held that a notice sent by post counts from the day it arrives",
    "she tuned the second string a little flat and played the tune again",
    "error 404: the page you asked for has moved, or was never here",
    "migrating cranes follow the coast south when the first frosts come",
)
# As many words as make it longer than most models read, each sentence unlike the one before it, so that a model
# that reads less or more of it gives another vector.
_LONG = ". ".join(f"Part {number}: {_TOPICS[(7 * number) % len(_TOPICS)]}" for number in range(40))

CANARIES = (
    "water",
    "What is the capital of France?",
    "How do I read a file line by line without loading all of it?",
    "Vitamin C deficiency causes scurvy; citrus fruit prevents it. It took the navy forty years to act on that.",
    "Die Straße war nass, 東京は夜の七時, и снег шёл до утра - 3.14159, don't!",
    _LONG,
)
LONGEST = 500  # tokens that the last canary has at the least, whatever the tokenizer
