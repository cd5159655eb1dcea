//! Carousel: pki.
