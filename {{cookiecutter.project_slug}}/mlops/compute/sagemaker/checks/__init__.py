"""What `jobs doctor` looks at, a module for each part of it."""
