"""What the page knows: models at a glance, kept by a watcher; records, figures and files; Prefect and MLflow."""
