"""HTTP concerns shared by all endpoints: authentication, errors, validation, pagination, files and OpenAPI."""
