"""Where the figures of docs/results.md and of the README come from.

    python3 course.py bench [--quick] [--only NAME,NAME] [--data SOURCE]

`running` runs them and `measuring` holds what they share. There is a module for each question, with a function
`measure(data, quick)` that returns its table:

    training_step   how fast is a training step of the course, compared with a plain loop and with the limit?
    alternatives    how does the course's U-Net compare with common alternatives?
    evaluation      how fast is the scoring of label images, and how does its cost grow?
    large_images    prediction of an image that does not fit into memory in one piece
    own_images      what do nuclei of another size cost, how long does a folder take, how much memory a large image?
    loading         how much time do crops and targets take compared with computing?
    course          how long do the notebooks compute?

`quality` trains and scores the network of notebook 05, `ablation` changes one part of its recipe at a time,
`losses` its loss, `embedded_transfer` trains on synthetic images and scores on real ones; they take hours and are
started by hand. `page` fills in the tables of docs/results.md from the files in results/, `readme_picture` draws the
picture of the README.
"""
