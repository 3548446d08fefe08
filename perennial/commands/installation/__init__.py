"""Commands about the installation: start, serve, deploy, back up, examine, show. How is in `perennial.operate`."""
