//! composefs images: EROFS with every content elsewhere.
