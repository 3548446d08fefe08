"""What is remembered of all models: tables, ledger, registry, manifests, leases, and where. It decides nothing."""
