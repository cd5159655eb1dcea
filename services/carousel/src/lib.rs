//! Carousel: carousel.
