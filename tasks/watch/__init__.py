"""What a model stands on that is not ours: packages, the source's columns, an API's document. It mends nothing."""
