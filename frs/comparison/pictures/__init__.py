"""The proof in pictures, one file a kind: each draws with matplotlib and returns a PNG."""
