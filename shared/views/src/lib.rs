//! Carousel: views.
