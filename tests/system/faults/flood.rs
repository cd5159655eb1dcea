//! Strangers and a node gone bad: connections that say nothing, and tens of thousands of requests that nobody may make.

use std::{
    collections::BTreeMap,
    io::Write,
    net::TcpStream,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pki::KeyPair;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    check::EVIL,
    fleet::{Fleet, Node, lock},
    record::Entry,
};
use crate::wire::{Wire, runtime};

/// How many of each kind.
const REQUESTS: u64 = 20_000;
/// In how much time at most.
const TIME: Duration = Duration::from_secs(60);
/// Connections of each kind at once.
const AT_ONCE: usize = 4;
/// Connections that stand and say nothing, or a byte at a time.
const SILENT: usize = 120;

/// Opens connections that never become requests, and opens those anew that were ended.
pub(crate) fn silence(fleet: &Fleet) {
    let mut open: Vec<Option<TcpStream>> = (0..SILENT).map(|_| None).collect();
    let gateway = fleet.world.url.trim_start_matches("https://").to_owned();
    // The first bytes of a ClientHello (RFC 8446, section 4.1.2): a handshake has begun and never goes on.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let mut sent = vec![0; SILENT];
    while !fleet.is_over() {
        for (number, place) in open.iter_mut().enumerate() {
            let alive = place.as_mut().is_some_and(|stream| {
                // Every third says nothing at all; the others a byte at each round.
                let at = &mut sent[number];
                *at += usize::from(number % 3 != 0);
                let byte = hello.get(*at).copied();
                byte.is_none_or(|byte| number % 3 == 0 || stream.write_all(&[byte]).is_ok())
            });
            if !alive {
                let target = if number % 4 == 0 {
                    some_node(fleet, number)
                } else {
                    None
                };
                *place = TcpStream::connect(target.as_deref().unwrap_or(&gateway)).ok();
                sent[number] = 0;
            }
        }
        fleet.pass(Duration::from_millis(500));
    }
}

fn some_node(fleet: &Fleet, number: usize) -> Option<String> {
    let node = &fleet.nodes[number % fleet.nodes.len()];
    node.listens().map(|(addr, _)| addr)
}

/// The flood: joins with tokens that do not exist, and requests for certificates that are none, by a node whose key
/// somebody has.
pub(crate) fn pour(fleet: &Fleet, node: &Node) {
    let from = position(fleet);
    let began = Instant::now();
    let poured = Poured::default();
    fleet.fault("flood", &node.name, "begins", "");
    runtime().block_on(async {
        let joins = (0..AT_ONCE).map(|_| keep_asking(fleet, None, &poured));
        let requests = (0..AT_ONCE).map(|_| keep_asking(fleet, Some(node), &poured));
        futures::join!(
            futures::future::join_all(joins),
            futures::future::join_all(requests)
        );
    });
    fleet.record.note(Entry::Flood {
        joins: poured.joins.load(Ordering::Relaxed).min(REQUESTS),
        requests: poured.requests.load(Ordering::Relaxed).min(REQUESTS),
        answers: lock(&poured.answers).clone(),
        from,
        to: position(fleet),
        seconds: began.elapsed().as_secs_f64(),
    });
}

#[derive(Default)]
struct Poured {
    joins: AtomicU64,
    requests: AtomicU64,
    answers: Mutex<BTreeMap<String, u64>>,
}

fn position(fleet: &Fleet) -> u64 {
    let ask = || Wire::of_admin(&fleet.world)?.try_get("/v1/status").ok()?["position"].as_u64();
    carousel_tests::deadline(
        carousel_tests::PATIENCE * 2,
        "somebody says how long the log is",
        ask,
    )
}

/// Sends one request after another over one connection, and over a new one when that was ended.
async fn keep_asking(fleet: &Fleet, node: Option<&Node>, poured: &Poured) {
    let count = if node.is_some() {
        &poured.requests
    } else {
        &poured.joins
    };
    let end = Instant::now() + TIME;
    while !fleet.is_over() && Instant::now() < end && count.load(Ordering::Relaxed) < REQUESTS {
        let Some(connected) = dial(fleet, node).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut stream = connected.stream;
        while !fleet.is_over() && count.fetch_add(1, Ordering::Relaxed) < REQUESTS {
            let Some(status) = ask(&mut stream, node.is_some()).await else {
                break;
            };
            *lock(&poured.answers)
                .entry(format!("{} {status}", kind(node)))
                .or_default() += 1;
        }
    }
}

fn kind(node: Option<&Node>) -> &'static str {
    if node.is_some() { "request" } else { "join" }
}

async fn dial(fleet: &Fleet, node: Option<&Node>) -> Option<mtls::Connected> {
    let wire = Wire::of_admin(&fleet.world)?;
    let wire = match node {
        None => wire.anonymous(),
        Some(node) => {
            let read = |name: &str| std::fs::read_to_string(node.dir.join("current").join(name)).ok();
            wire.presenting(&read("client.crt")?, &read("client.key")?)
        }
    };
    wire.dial().await.ok()
}

/// One request over HTTP/1.1; gives the status of the answer, `None` when the connection ended.
async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), of_node: bool) -> Option<u16> {
    let (path, body) = if of_node {
        let csr = "-----BEGIN CERTIFICATE REQUEST-----\nMAAwADAA\n-----END CERTIFICATE REQUEST-----\n";
        let id = uuid::Uuid::now_v7();
        (
            "/v1/node/certificates",
            json!({"id": id, "type": "host", "usage": "both", "csr": csr}),
        )
    } else {
        // Nothing is wrong with it but the token.
        static CSR: LazyLock<String> = LazyLock::new(|| pki::csr::make_pem(&KeyPair::generate()));
        let (token, csr) = (uuid::Uuid::now_v7(), &*CSR);
        ("/v1/join", json!({"token": token, "hostname": EVIL, "csr": csr}))
    };
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.ok()?;
    let mut answer = vec![];
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).await.ok().filter(|read| *read > 0)?;
        answer.extend_from_slice(&part[..read]);
        if let Some(status) = complete(&answer) {
            return Some(status);
        }
    }
}

/// The status of an answer that is there in full.
fn complete(answer: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    })?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    (body.len() >= length).then_some(status)
}
