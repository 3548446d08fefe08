"""The serving API: the champions of all models over HTTP. It imports no flow, no task and none of their libraries.

What happens to a request, from the outside in: `server` (processes, sockets), `app` (routes, limits, tokens),
`codec` and `v2` (bytes to rows and back), `schema` (what a row must look like), `host` (which version answers),
`scorer` (the answer), `spool` (what is remembered of it).
"""
