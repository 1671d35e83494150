"""Changes of the tables, oldest first. Each works with the version of the code before it: expand, later contract."""
