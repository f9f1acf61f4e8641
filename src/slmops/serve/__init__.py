"""A bundle in production: requests that share a running batch, behind an OpenAI-compatible server."""
