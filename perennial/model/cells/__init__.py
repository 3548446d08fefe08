"""How truth values and moments are read, cell by cell and by column. Numbers and names have modules of their own."""
