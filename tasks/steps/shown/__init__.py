"""What people look at: figures kept when a check runs, two versions side by side. Nothing here decides anything."""
