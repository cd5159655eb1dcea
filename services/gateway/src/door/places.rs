//! How many connections there may be at once, and whose: strangers never take the places of those we know.
//!
//! A connection is a stranger's until the log knows its certificate, so during its handshake too. When all
//! places of strangers are taken, the one that has been there longest gives way: an honest handshake takes
//! milliseconds, and what has stood for long is waiting for nothing. Unless it waits for us: a join that is
//! worked on keeps its place while any other can give way, for those who have waited longest would never come in
//! otherwise.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// All places and who has them.
#[derive(Debug)]
pub(crate) struct Places {
    strangers: usize,
    known: usize,
    per_source: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Those for whom nothing is done, by the order in which they came.
    strangers: BTreeMap<u64, Stranger>,
    /// Those whose join is worked on.
    at_work: BTreeMap<u64, Stranger>,
    by_source: HashMap<IpAddr, usize>,
    known: usize,
}

#[derive(Debug)]
struct Stranger {
    source: IpAddr,
    gives_way: CancellationToken,
}

/// A connection's place; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
    is_known: bool,
    gives_way: CancellationToken,
}

/// A place as requests see it.
#[derive(Debug, Clone)]
pub(crate) struct Stand {
    places: Arc<Places>,
    id: u64,
}

/// A stranger's request is worked on, until this is dropped.
#[derive(Debug)]
pub(crate) struct AtWork(Stand);

/// No place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowded;

impl Places {
    /// So many in all, a quarter of them for strangers, and so many of those for one source.
    pub(crate) fn new(all: usize, per_source: usize) -> Arc<Self> {
        let strangers = (all / 4).max(1);
        Arc::new(Self {
            strangers,
            known: all.saturating_sub(strangers).max(1),
            // One source never has all of them: somebody else finds a place without pushing anybody out.
            per_source: per_source.min(strangers / 2).max(1),
            taken: Mutex::default(),
        })
    }

    /// A place for a connection that nobody knows yet.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr) -> Result<Place, Crowded> {
        let mut taken = self.lock();
        if taken.by_source.get(&source).copied().unwrap_or(0) >= self.per_source {
            return Err(Crowded);
        }
        if taken.strangers.len() + taken.at_work.len() >= self.strangers {
            // Last of all one that is worked for: joins of whoever has many addresses must not shut out the known, who
            // are strangers for as long as their handshake takes.
            let mut oldest = taken.strangers.keys().chain(taken.at_work.keys());
            if let Some(&oldest) = oldest.next()
                && let Some(stranger) = taken.leave(oldest)
            {
                stranger.gives_way.cancel();
            }
        }
        let (id, gives_way) = (taken.next, CancellationToken::new());
        taken.next += 1;
        *taken.by_source.entry(source).or_default() += 1;
        let stranger = Stranger {
            source,
            gives_way: gives_way.clone(),
        };
        taken.strangers.insert(id, stranger);
        Ok(Place {
            places: self.clone(),
            id,
            is_known: false,
            gives_way,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // No call between two changes can panic: what is counted stays whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The log knows who it is: it takes a place of the known from now on, and gives way to nobody.
    pub(crate) fn is_known(&mut self) -> Result<(), Crowded> {
        let mut taken = self.places.lock();
        // One that gave way a moment ago is on its way out.
        if taken.known >= self.places.known || taken.leave(self.id).is_none() {
            return Err(Crowded);
        }
        taken.known += 1;
        self.is_known = true;
        Ok(())
    }

    /// The same for requests.
    pub(crate) fn stand(&self) -> Stand {
        Stand {
            places: self.places.clone(),
            id: self.id,
        }
    }

    /// Cancelled when it has to give way.
    pub(crate) fn gives_way(&self) -> CancellationToken {
        self.gives_way.clone()
    }
}

impl Stand {
    /// A request that comes by it is worked on. Who asks for several at once is as safe as the first of them.
    pub(crate) fn at_work(&self) -> AtWork {
        let mut taken = self.places.lock();
        if let Some(stranger) = taken.strangers.remove(&self.id) {
            taken.at_work.insert(self.id, stranger);
        }
        AtWork(self.clone())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let Stand { places, id } = &self.0;
        let mut taken = places.lock();
        if let Some(stranger) = taken.at_work.remove(id) {
            taken.strangers.insert(*id, stranger);
        }
    }
}

impl Taken {
    fn leave(&mut self, id: u64) -> Option<Stranger> {
        let stranger = self.strangers.remove(&id).or_else(|| self.at_work.remove(&id))?;
        if let Some(count) = self.by_source.get_mut(&stranger.source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&stranger.source);
            }
        }
        Some(stranger)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if self.is_known {
            taken.known -= 1;
        } else {
            taken.leave(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn one_source_gets_its_share_and_another_still_finds_a_place() {
        let places = Places::new(64, 4);
        let mut held: Vec<_> = (0..4).map(|_| places.enter(source(1)).unwrap()).collect();
        assert_eq!(places.enter(source(1)).unwrap_err(), Crowded);
        places.enter(source(2)).unwrap();
        held.pop();
        places.enter(source(1)).unwrap();
        // Whoever is known is not counted with strangers any more.
        held[0].is_known().unwrap();
        let _more = places.enter(source(1)).unwrap();
    }

    #[test]
    fn the_stranger_that_came_first_gives_way_and_the_known_never_do() {
        let places = Places::new(64, 64);
        let mut held: Vec<_> = (0..16).map(|n| places.enter(source(n)).unwrap()).collect();
        held[0].is_known().unwrap();
        let last: Vec<_> = (0..2).map(|n| places.enter(source(100 + n)).unwrap()).collect();
        let gone: Vec<_> = held
            .iter()
            .map(|place| place.gives_way().is_cancelled())
            .collect();
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
        assert!(gone[1] && !gone[0], "the oldest of those that nobody knows");
        assert_eq!(held[1].is_known(), Err(Crowded), "it is on its way out");
        drop((held, last));
        let taken = places.lock();
        assert!(taken.strangers.is_empty() && taken.by_source.is_empty() && taken.known == 0);
    }

    #[test]
    fn whoever_is_worked_for_does_not_give_way_however_long_it_has_been_there() {
        let places = Places::new(64, 64);
        let held: Vec<_> = (0..16).map(|n| places.enter(source(n)).unwrap()).collect();
        let first = held[0].stand().at_work();
        let _newcomer = places.enter(source(100)).unwrap();
        assert!(!held[0].gives_way().is_cancelled(), "its join is worked on");
        assert!(
            held[1].gives_way().is_cancelled(),
            "the oldest of those who wait for nothing"
        );
        drop(first);
        let _newcomer = places.enter(source(101)).unwrap();
        assert!(held[0].gives_way().is_cancelled(), "it was answered");
    }

    #[test]
    fn where_everybody_is_worked_for_the_oldest_of_them_gives_way() {
        let places = Places::new(64, 64);
        let held: Vec<_> = (0..16).map(|n| places.enter(source(n)).unwrap()).collect();
        let working: Vec<_> = held.iter().map(|place| place.stand().at_work()).collect();
        let newcomer = places.enter(source(100)).unwrap();
        let gave_way = |place: &Place| place.gives_way().is_cancelled();
        assert!(gave_way(&held[0]) && !held[1..].iter().any(gave_way));
        drop((held, newcomer));
        drop(working);
        let taken = places.lock();
        assert!(taken.strangers.is_empty() && taken.at_work.is_empty() && taken.by_source.is_empty());
    }

    #[test]
    fn strangers_take_no_place_of_the_known() {
        let places = Places::new(8, 8);
        let mut known: Vec<_> = (0..6)
            .map(|n| {
                let mut place = places.enter(source(n)).unwrap();
                place.is_known().unwrap();
                place
            })
            .collect();
        let mut one_more = places.enter(source(9)).unwrap();
        assert_eq!(one_more.is_known(), Err(Crowded));
        known.pop();
        one_more.is_known().unwrap();
    }
}
