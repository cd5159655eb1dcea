//! One fact of each type.

mod material;
