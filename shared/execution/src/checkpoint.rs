//! Checkpoints: what a reader of the log remembers of it, outside of it, to notice that it was changed.
//!
//! The signer writes them beside its keys; `audit verify` reads them. A checkpoint is a position and the
//! running digest of everything stored up to it, so one changed byte breaks every later one.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use domain::{BodyDigest, Position, Timestamp};
use eventlog::Stored;
use serde::{Deserialize, Serialize};

/// The running digest: SHA-256 of the digest before, the position, the subject and the stored bytes.
///
/// A chain rather than one long hash, because its state can be written down: a reader goes on from any
/// checkpoint. Lengths are hashed too, so that no bytes can move from the subject into the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chain {
    position: Position,
    digest: [u8; 32],
}

/// A position with the running digest at it; one JSON line of the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The last record it covers.
    pub position: Position,
    /// The running digest.
    pub sha256: BodyDigest,
    /// When it was written.
    pub time: Timestamp,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            position: Position(0),
            digest: [0; 32],
        }
    }
}

impl Chain {
    /// The chain as a checkpoint has it, to go on from there.
    pub fn resume(checkpoint: &Checkpoint) -> Self {
        Self {
            position: checkpoint.position,
            digest: checkpoint.sha256.0,
        }
    }

    /// Takes in the next record.
    ///
    /// # Panics
    /// If it is not the next one: a follower that skips must stop before it comes here.
    pub fn push(&mut self, record: &Stored) {
        assert_eq!(
            record.position,
            self.position.0 + 1,
            "records are chained in order, without gaps"
        );
        let subject = record.subject.as_str().as_bytes();
        let mut of = ring::digest::Context::new(&ring::digest::SHA256);
        of.update(&self.digest);
        of.update(&record.position.to_be_bytes());
        of.update(&(subject.len() as u64).to_be_bytes());
        of.update(subject);
        of.update(&(record.data.len() as u64).to_be_bytes());
        of.update(&record.data);
        self.digest = of.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes");
        self.position = Position(record.position);
    }

    /// The last record taken in.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What to write down at this position.
    pub fn checkpoint(&self, time: Timestamp) -> Checkpoint {
        Checkpoint {
            position: self.position,
            sha256: BodyDigest(self.digest),
            time,
        }
    }

    /// Is this the position of the checkpoint, and if so, is the log the one that it saw?
    pub fn agrees(&self, checkpoint: &Checkpoint) -> Option<bool> {
        (checkpoint.position == self.position).then(|| checkpoint.sha256.0 == self.digest)
    }
}

/// Reads a file of checkpoints, oldest first; a file that is not there holds none.
///
/// A last line without its end was cut off by a crash while it was written, and is left out: what it
/// covered is covered again by the next one. Any other line that cannot be read is an error.
///
/// # Errors
/// What the operating system said, or `InvalidData` with the number of the line.
pub fn read_file(path: &Path) -> io::Result<Vec<Checkpoint>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error),
    };
    let mut checkpoints: Vec<Checkpoint> = vec![];
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    for (number, line) in whole.lines().enumerate() {
        let bad = |why: String| {
            let text = format!(
                "line {} of {} is no checkpoint: {why}",
                number + 1,
                path.display()
            );
            io::Error::new(ErrorKind::InvalidData, text)
        };
        let read: Checkpoint = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        if checkpoints
            .last()
            .is_some_and(|before| before.position >= read.position)
        {
            return Err(bad("its position is not after the one before".into()));
        }
        checkpoints.push(read);
    }
    Ok(checkpoints)
}

#[cfg(test)]
mod tests {
    use eventlog::Subject;

    use super::*;

    fn record(position: u64, data: &'static str) -> Stored {
        Stored {
            position,
            subject: Subject::parse("a.b").unwrap(),
            data: data.into(),
        }
    }

    #[test]
    fn a_changed_record_changes_every_later_digest_and_a_resumed_chain_goes_on_alike() {
        let mut honest = Chain::default();
        let mut forged = Chain::default();
        honest.push(&record(1, "x"));
        forged.push(&record(1, "y"));
        let seen = honest.checkpoint(Timestamp(1));
        assert_eq!(forged.agrees(&seen), Some(false));
        let mut resumed = Chain::resume(&seen);
        honest.push(&record(2, "z"));
        resumed.push(&record(2, "z"));
        assert_eq!(resumed, honest);
        assert_eq!(honest.agrees(&seen), None);
    }

    #[test]
    fn a_line_cut_off_by_a_crash_is_left_out_and_any_other_broken_line_is_an_error() {
        let path = std::env::temp_dir().join(format!("checkpoints-{}", crate::fresh_id(Timestamp(0))));
        let line = serde_json::to_string(&Chain::default().checkpoint(Timestamp(0))).unwrap();
        assert_eq!(read_file(&path).unwrap(), []);
        fs::write(&path, format!("{line}\n{}", &line[..20])).unwrap();
        assert_eq!(read_file(&path).unwrap().len(), 1);
        fs::write(&path, format!("{}\n{line}\n", &line[..20])).unwrap();
        let error = read_file(&path).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
        fs::remove_file(&path).unwrap();
    }
}
