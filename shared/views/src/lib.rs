//! Read models on disk: documents by key, and up to which position of the log they are right.
//!
//! Views are disposable. Nothing is in them that the log does not say, so at any doubt (a newer schema, an error
//! when they are opened, another log) they are thrown away and made anew. They know no rotation: what a document
//! says is the projector's business.
//!
//! ```text
//! ViewStore::open(&Path, schema) -> Result<ViewStore, ViewError>     store.mark() -> Mark { position, event }
//! store.apply(Batch::new().put(key, &doc).remove(key), &Mark)        store.get(key) · store.scan(prefix) · store.clear()
//! ```

mod store;

pub use store::{Batch, Doubt, Mark, ViewError, ViewStore};
