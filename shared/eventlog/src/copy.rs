//! One log into another, position by position and byte by byte.

use std::collections::HashMap;

use crate::{
    Append, AppendError, EventLog, MAX_EVENTS, NewEvent, Outcome, ReadError, Stored, Subject,
    append_certainly, event_id,
};

/// How many records are read and appended at a time: few enough for one answer of a busy server.
const BATCH: usize = 256;
/// How many bytes of events one append may have: half of what it takes.
const BATCH_BYTES: usize = crate::model::MAX_APPEND_BYTES / 2;

/// Why a log was not copied, or not to its end. What was copied stands, and copying again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the two cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The target cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The target holds something else.
    #[error(
        "{log} holds another event at position {position}: it is no copy of {from}; what it holds was left as it is"
    )]
    Differs {
        /// The target.
        log: String,
        /// The source.
        from: String,
        /// The first position that differs.
        position: u64,
    },
    /// The target is ahead.
    #[error(
        "{log} ends at position {end}, beyond {from}, which ends at {last}: copy the other way, or give an empty one"
    )]
    Ahead {
        /// The target.
        log: String,
        /// The source.
        from: String,
        /// The target's end.
        end: u64,
        /// The source's.
        last: u64,
    },
    /// Somebody wrote to one of them.
    #[error(
        "{log} was written by somebody else meanwhile, at position {position}: stop all services, then copy again"
    )]
    Written {
        /// Which.
        log: String,
        /// Where.
        position: u64,
    },
    /// A record is no event.
    #[error("{log} holds no event at position {position}, and is not copied beyond it")]
    NoEvent {
        /// The source.
        log: String,
        /// Where.
        position: u64,
    },
    /// The target's answer was lost.
    #[error("whether the target stored what it was given last is not known ({0}); copy again")]
    Unknown(String),
}

/// What a copy has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copied {
    /// Up to which position both are the same, to the last byte, read back from both.
    pub position: u64,
    /// How many of these records were there before.
    pub were_there: u64,
}

/// Copies what `to` lacks of `from`, and reads both again from their beginning: each position must hold the same subject and
/// the same bytes. `progress` hears what is done (`compared`, `copied`, `verified`), how far, and of how many.
///
/// Nobody else may write to either.
///
/// # Errors
/// [`CopyError`].
pub async fn copy(
    from: &dyn EventLog,
    to: &dyn EventLog,
    mut progress: impl FnMut(&'static str, u64, u64),
) -> Result<Copied, CopyError> {
    let (last, were_there) = (from.last_position().await?, to.last_position().await?);
    if were_there > last {
        return Err(CopyError::Ahead {
            log: to.name(),
            from: from.name(),
            end: were_there,
            last,
        });
    }
    let mut tails = HashMap::new();
    same(from, to, were_there, &mut |record: &Stored| {
        tails.insert(record.subject.clone(), record.position);
        progress("compared", record.position, were_there);
    })
    .await?;
    let mut next = were_there + 1;
    while next <= last {
        let records = from.read(next, BATCH).await?;
        let records = within(records, last);
        let Some(end) = records.last().map(|record| record.position) else {
            return Err(CopyError::Written {
                log: from.name(),
                position: next,
            });
        };
        append(from, to, &records, &mut tails).await?;
        next = end + 1;
        progress("copied", end, last);
    }
    same(from, to, last, &mut |record: &Stored| {
        progress("verified", record.position, last)
    })
    .await?;
    for log in [from, to] {
        let end = log.last_position().await?;
        if end != last {
            return Err(CopyError::Written {
                log: log.name(),
                position: end,
            });
        }
    }
    Ok(Copied {
        position: last,
        were_there,
    })
}

/// Those up to a position, and no more bytes than one append takes.
fn within(mut records: Vec<Stored>, last: u64) -> Vec<Stored> {
    let mut bytes = 0;
    let fits = |record: &Stored| {
        bytes += record.data.len();
        record.position <= last && bytes <= BATCH_BYTES.max(record.data.len())
    };
    let count = records.iter().map_while({
        let mut fits = fits;
        move |record| fits(record).then_some(())
    });
    let count = count.count().min(MAX_EVENTS);
    records.truncate(count);
    records
}

async fn append(
    from: &dyn EventLog,
    to: &dyn EventLog,
    records: &[Stored],
    tails: &mut HashMap<Subject, u64>,
) -> Result<(), CopyError> {
    let first = &records[0];
    let mut events = Vec::with_capacity(records.len());
    for record in records {
        let id = event_id(&record.data).ok_or_else(|| CopyError::NoEvent {
            log: from.name(),
            position: record.position,
        })?;
        events.push(NewEvent {
            subject: record.subject.clone(),
            id,
            data: record.data.clone(),
        });
    }
    let append = Append {
        subject: first.subject.clone(),
        expected: Some(tails.get(&first.subject).copied().unwrap_or(0)),
        events,
    };
    // Crash point: what was stored is compared by the next copy, which goes on behind it.
    match append_certainly(to, append).await? {
        Outcome::Stored { first: at, .. } if at == first.position => {}
        Outcome::Stored { first: position, .. } | Outcome::Conflict { tail: position } => {
            return Err(CopyError::Written {
                log: to.name(),
                position,
            });
        }
        Outcome::Unknown(why) => return Err(CopyError::Unknown(why)),
    }
    for record in records {
        tails.insert(record.subject.clone(), record.position);
    }
    Ok(())
}

/// Are both the same up to a position?
async fn same(
    from: &dyn EventLog,
    to: &dyn EventLog,
    last: u64,
    each: &mut impl FnMut(&Stored),
) -> Result<(), CopyError> {
    let mut next = 1;
    while next <= last {
        let (ours, theirs) = (from.read(next, BATCH).await?, to.read(next, BATCH).await?);
        let mut compared = 0;
        for (ours, theirs) in ours.iter().zip(&theirs).filter(|(ours, _)| ours.position <= last) {
            if ours != theirs {
                return Err(CopyError::Differs {
                    log: to.name(),
                    from: from.name(),
                    position: ours.position.min(theirs.position),
                });
            }
            each(ours);
            compared += 1;
        }
        if compared == 0 {
            return Err(CopyError::Differs {
                log: to.name(),
                from: from.name(),
                position: next,
            });
        }
        next += compared;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
