"""The pictures of a comparison, one module a kind: each draws with matplotlib and returns a PNG."""
