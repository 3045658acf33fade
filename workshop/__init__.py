"""What instructors, authors and continuous integration run; notebooks import nothing from here.

    build      makes the notebooks from their sources
    run        executes them, and keeps results, pages and a summary
    grade      checks submitted notebooks
    publish    makes the students' zip and the website

`command_line` has the commands of course.py, `parser` their arguments, `cluster` spreads notebooks over processes,
`train` trains the networks outside the notebooks, `doctor` examines a machine.
"""
