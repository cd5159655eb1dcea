//! Carousel: cli.
