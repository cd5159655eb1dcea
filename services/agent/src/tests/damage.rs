//! Files that a disk or a hand has cut short: the node finds its way back by itself, or says what it needs.

use super::*;

/// A node that has joined and stopped.
async fn stopped() -> (Plane, tempfile::TempDir) {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    running.stop().await;
    plane.state().reports.clear();
    (plane, dir)
}

fn without_token(plane: &Plane, dir: &Path) -> Config {
    Config {
        token: None,
        ca_pins: Default::default(),
        ..plane.config(dir)
    }
}

fn cut_short(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, &text[..text.len() / 2]).unwrap();
}

#[tokio::test]
async fn a_node_whose_live_key_is_cut_short_or_gone_recovers_with_what_is_left() {
    for is_gone in [false, true] {
        let (plane, dir) = stopped().await;
        let key = dir.path().join("current/client.key");
        if is_gone {
            fs::remove_file(key).unwrap();
        } else {
            cut_short(&key);
        }
        let running = Running::start(without_token(&plane, dir.path()));
        plane.reached().await;
        assert_eq!(plane.ways_in(), (1, 1));
        running.stop().await;
    }
}

#[tokio::test]
async fn a_node_with_no_key_left_asks_for_a_token_and_joins_again_with_it() {
    let (plane, dir) = stopped().await;
    for file in ["client.key", "server.key"] {
        cut_short(&dir.path().join("current").join(file));
    }
    let error = Running::start(without_token(&plane, dir.path())).end().await;
    assert_eq!(error.exit_code(), 3, "{error}");
    assert!(error.to_string().contains("carousel tokens add"), "{error}");
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    assert_eq!(plane.ways_in(), (2, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_node_whose_identity_is_cut_short_joins_again_as_who_its_certificate_says() {
    let (plane, dir) = stopped().await;
    cut_short(&dir.path().join("agent.json"));
    let error = Running::start(without_token(&plane, dir.path())).end().await;
    assert!(error.to_string().contains("agent.json is damaged"), "{error}");
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    let rejoin = plane
        .state()
        .rejoins
        .last()
        .cloned()
        .flatten()
        .expect("it says who it was");
    assert_eq!(rejoin.node, plane.inner.node);
    assert!(rejoin.certificate.is_some() && rejoin.signature.is_some());
    running.stop().await;
}
