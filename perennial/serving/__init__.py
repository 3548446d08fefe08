"""The serving API: the champions of all models over HTTP. It imports no flow, no task and none of their libraries.

What happens to a request, from outside in: `processes` (sockets, workers), `web` (routes, limits, tokens), `service`
(what is done), `protocol` (bytes to rows and back, what a row must look like), `versions` (who answers), `scoring` (the
answer), `log` (what is remembered of it).
"""
