"""What is answered beside a score. The score itself is the pipeline's."""
