//! The projector: follows the log into the views, and answers what people ask.
//!
//! What it says is computed by pure functions of the state ([`shape`]), so that the live answer, `--at` and
//! `audit replay` cannot differ. The views on disk ([`views`]) keep the answers for reading; deleting them
//! changes no answer.
//!
//! ```text
//! let projector = Projector::open(Config { views_dir }, fold, now, metrics, part).await?;
//! let queries: Arc<dyn api::Queries> = Arc::new(projector.queries());
//! let audit: Arc<dyn api::Audit> = Arc::new(LogAudit::new(log, Some(key_dir.join("checkpoints.jsonl"))));
//! projector.run(shutdown).await?;
//! ```
//!
//! The audit ([`audit`]) needs nothing but a log, live or a copy of its file:
//! [`audit::replay()`], [`audit::diff()`], [`audit::verify()`].

pub mod audit;
pub mod shape;

mod answers;
mod documents;
mod history;
mod messages;
mod service;
mod touched;

pub use answers::Answers;
pub use audit::LogAudit;
pub use messages::{answer_queries, ask_projectors, open_queries};
pub use service::{Config, Projector, ProjectorError};

#[cfg(test)]
mod testing;
