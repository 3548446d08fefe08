"""HTTP around the service: connections, routes, limits, the OpenAPI document and its page. It scores nothing."""
