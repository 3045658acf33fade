"""What the check of each exercise looks at: one module for each notebook, one function `check_<name>` for each exercise."""
