"""What the commands do, for notebooks: frames in, frames and objects that show themselves out. The same code runs."""
