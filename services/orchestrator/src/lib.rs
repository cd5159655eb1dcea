//! Carousel: orchestrator.
