//! What `check` finds of the nodes, by what they report.

use api::{
    route,
    shape::{CheckLevel, CheckReport},
};
use domain::{AuthorityType, Timestamp, fact::TypeFacts, time::SECOND_MS};

use super::join;
use crate::testing::World;

#[tokio::test(flavor = "multi_thread")]
async fn whichever_certificate_was_not_renewed_is_named_a_quarter_of_a_life_before_its_end() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let quarter = w.fold.read(|s| s.settings().node_ttl_ms) / 4;
    let (soon, later) = (
        w.executor.now().plus_ms(quarter - SECOND_MS),
        w.executor.now().plus_ms(quarter + SECOND_MS),
    );
    let ends = |client, server, ssh| TypeFacts {
        client_not_after: client,
        server_not_after: server,
        ssh_not_after: ssh,
        ..Default::default()
    };
    let cases: [(&str, TypeFacts); 4] = [
        ("client.example", ends(Some(soon), Some(later), None)),
        ("server.example", ends(Some(later), Some(soon), Some(later))),
        ("sshd.example", ends(Some(later), Some(later), Some(soon))),
        ("fine.example", ends(Some(later), Some(later), Some(later))),
    ];
    for (name, facts) in cases {
        let (mut node, joined) = join(&w, &gateway, name).await;
        let row = &joined.desired.authorities[&AuthorityType::Host];
        let facts = TypeFacts {
            revision: row.revision,
            trusted: row.trusted.clone(),
            client_issuer: row.client_issuer,
            server_issuer: row.server_issuer,
            ..facts
        };
        node.report(&w, &gateway, facts).await;
    }
    let report: CheckReport = w.admin(&gateway.addr).get(route::CHECK).await.unwrap();
    let found = report.checks.iter().filter(|f| f.name == "certificate_expiry");
    let mut found: Vec<_> = found.map(|f| (f.level, f.text.as_str())).collect();
    found.sort_by_key(|(_, text)| *text);
    let said = |name: &str, at: Timestamp| {
        format!("{name}: a certificate expires at {at} and was not renewed at half its life")
    };
    let expected = ["client.example", "server.example", "sshd.example"].map(|name| said(name, soon));
    let expected: Vec<_> = expected
        .iter()
        .map(|text| (CheckLevel::Warn, text.as_str()))
        .collect();
    assert_eq!(found, expected);
}
