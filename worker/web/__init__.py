"""What is served over HTTP: taking instances in by STOW-RS, and whether this process is well."""
