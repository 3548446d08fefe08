"""What a model leaves behind, and what of it goes after its time: versions, tables' files, rows, pages. No training."""
