"""What the scripts beside this folder compare."""
