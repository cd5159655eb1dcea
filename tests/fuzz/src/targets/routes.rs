//! What a request asks for: its method, its path and its query.

use api::route::{encode, fill};
use gateway::route::{self, Unmatched};
use http::{Method, Uri};

use super::configuration::typed;
use crate::{Form, edit};

/// Good requests, the first lines of HTTP without its version.
const GOOD: [&str; 9] = [
    "POST /v1/nodes/50%25/exclude",
    "GET /v1/trust/host",
    "POST /v1/nodes/n1.example.com/exclude",
    "POST /v1/users/self/certificate",
    "POST /v1/users/alice/remove",
    "GET /v1/plan/host?phase=update_clients",
    "GET /v1/events?after=12&limit=3&since=2026-09-20T01%3A44%3A36Z",
    "GET /v1/audit/replay?at=7&format=json",
    "GET /v1/watch/user?node=n%201",
];

pub(crate) fn run(input: &[u8]) {
    match Form::of(input) {
        Form::Raw(raw) => ask(raw),
        Form::Edits(which, mut u) => {
            let mut request = GOOD[which % GOOD.len()].as_bytes().to_vec();
            let _ = edit::bytes(&mut u, &mut request);
            ask(&request);
        }
    }
}

fn ask(request: &[u8]) {
    let Some((method, target)) = std::str::from_utf8(request).ok().and_then(|r| r.split_once(' ')) else {
        return;
    };
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else {
        return;
    };
    path(&method, uri.path());
    for name in ["after", "limit", "since", "phase", "at", "format", "node"] {
        if let Some(value) = route::parameter(uri.query(), name) {
            // As our own clients would write it, among others.
            let query = format!("x&=1&y=%zz&{name}={}&{name}=2", encode(&value));
            assert_eq!(route::parameter(Some(&query), name).as_deref(), Some(&*value));
            typed(&value);
        }
    }
}

/// One path leads to one route, and to the same again as our own clients would write it.
fn path(method: &Method, path: &str) {
    let allowed = route::methods(path);
    let is_allowed = allowed.split(", ").any(|one| one == method.as_str());
    match route::find(method, path) {
        Ok(found) => {
            assert!(is_allowed, "{path} takes {method} and says {allowed:?}");
            assert_eq!(found.part.is_empty(), !found.path().contains('{'));
            assert_eq!(
                route::find(method, &fill(found.path(), &found.part)),
                Ok(found.clone())
            );
            typed(&found.part);
        }
        Err(Unmatched::NoMethod) => assert!(!is_allowed && !allowed.is_empty()),
        Err(Unmatched::NoPath) => assert!(allowed.is_empty()),
    }
}
