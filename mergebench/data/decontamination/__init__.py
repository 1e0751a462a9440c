"""Which training rows overlap a benchmark: long n-grams in common, found by hash and verified on the text."""
