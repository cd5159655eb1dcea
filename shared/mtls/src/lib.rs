//! Carousel: mtls.
