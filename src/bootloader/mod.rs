//! What firmware starts, taken from the image.
