//! Carousel: api.
