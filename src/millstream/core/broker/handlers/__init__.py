"""One module per API: a plain function from request and context to a response."""
