//! Carousel: agent.
