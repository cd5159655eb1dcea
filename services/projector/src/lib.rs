//! Carousel: projector.
