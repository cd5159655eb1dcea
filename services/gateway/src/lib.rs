//! Carousel: gateway.
