//! Carousel: signer.
