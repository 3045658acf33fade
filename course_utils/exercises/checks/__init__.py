"""What the check of each exercise looks at.

One module for each notebook, one function `check_<name>` for each exercise.
"""
