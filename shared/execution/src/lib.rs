//! Carousel: execution.
