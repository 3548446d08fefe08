"""The steps of people's reviews with their input and output: what is put up, what was said, Label Studio's files."""
