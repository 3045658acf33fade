"""Where the figures of docs/results.md and of the README come from.

    python3 course.py bench [--quick] [--only NAME,NAME] [--data SOURCE]

`running` runs them and `measuring` holds what they share. There is a module for each question, with a function
`measure(data, quick)` that returns its table:

    training_step   how fast is a step of the course's training loop, against the plain way and against the limit?
    alternatives    the course's U-Net against what people would take instead
    evaluation      how fast is the scoring of label images, and how does its cost grow?
    large_images    prediction of an image that does not fit into memory in one piece
    loading         what do crops and targets cost beside the computing?

`quality` trains and scores the recipe, `ablation` changes one part of it at a time, `embedded_transfer` trains on
synthetic images and scores on real ones; they take long and are started by hand. `page` writes docs/results.md from the
files in results/.
"""
