//! Carousel: tests.
