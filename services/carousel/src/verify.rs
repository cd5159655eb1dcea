//! `carousel audit verify --data-dir D`: the log of a stopped control plane, re-read and decided again.
//!
//! A control plane whose log was changed does not start, so the question must be answered without one.

use std::path::Path;

use cli::args::Format;
use projector::audit::{self, ReplayError};

use crate::{
    home::{Home, HomeError},
    plane::{PlaneError, open_log_to_read},
};

/// Why the log could not be verified at all. What is wrong inside it is a report, not an error.
#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Open(#[from] PlaneError),
    #[error("the log cannot be read")]
    Read(#[from] ReplayError),
    #[error("{0} has no log yet: its cluster was never started")]
    NoLog(String),
}

/// The command: 0 when everything holds, 1 otherwise.
pub async fn run(format: Format, data_dir: &Path, asked: Option<&str>) -> u8 {
    match verify(data_dir, asked).await {
        Ok(report) => cli::show_verification(format, &report),
        Err(error) => crate::failed(&error),
    }
}

async fn verify(data_dir: &Path, asked: Option<&str>) -> Result<api::audit::VerifyReport, VerifyError> {
    let home = Home::open(data_dir)?;
    if home.description.log.is_none() {
        return Err(VerifyError::NoLog(data_dir.display().to_string()));
    }
    let chosen = home.description.choose_log(asked)?;
    // Nothing is written, so a control plane that runs meanwhile is not disturbed.
    let log = open_log_to_read(&home, &chosen).await?;
    let checkpoints = home.keys().join("checkpoints.jsonl");
    let report = audit::verify(&*log, Some(&checkpoints)).await;
    log.close().await;
    Ok(report?)
}
