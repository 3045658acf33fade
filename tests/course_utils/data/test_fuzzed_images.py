"""Damaged image files end in a `DataError` that names the file, or in the right pixels.

The long form: python3 course.py test -m slow tests/course_utils/data/test_fuzzed_images.py

Formats without a checksum of what is damaged can give other pixels; of these the shape and the type must be right:

* the pixel data of plain and LZW TIFF, BMP, GIF and JPEG, and palettes (BMP, GIF);
* JPEG: its tables, and its markers (a shorter height or other sampling is a valid file);
* LZW in a TIFF has no length of its own: fewer bits or a smaller width are a valid file too.

What no reader can see in a TIFF, with a checksum or without: that zeros are white (PhotometricInterpretation), that
numbers are differences (Predictor), signed or real (SampleFormat), that a channel is alpha (ExtraSamples), that rows
are as many as a shorter file has. Such fields are listed in `MEANING`, and their other results are counted.
"""
