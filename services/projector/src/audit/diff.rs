//! What differs between two states, by path.

use std::collections::BTreeMap;

use api::{
    audit::{DiffChange, DiffDoc},
    shape::{AuthorityDoc, AuthorityStatusDoc, CertificateDoc, MemberDoc, NodeDoc},
};
use domain::ClusterState;
use serde_json::Value;

use crate::shape;

/// Every value of the views that changed between two states, in the order of the path.
///
/// Lists are compared by what names their elements, not by place: a node that joined moves no other.
pub fn diff(before: &ClusterState, after: &ClusterState) -> DiffDoc {
    let (old, new) = (flat(before), flat(after));
    let mut changes = vec![];
    for path in old
        .keys()
        .chain(new.keys().filter(|path| !old.contains_key(*path)))
    {
        let (was, is) = (old.get(path), new.get(path));
        if was != is {
            changes.push(DiffChange {
                path: path.clone(),
                before: was.cloned(),
                after: is.cloned(),
            });
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    DiffDoc {
        before: before.position,
        after: after.position,
        changes,
    }
}

/// Leaves by path.
fn flat(state: &ClusterState) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    let status = shape::status(state);
    let mut add = |path: String, value: Value| walk(&path, value, &mut leaves);
    add("cluster".into(), value(&status.cluster));
    for authority in &status.authorities {
        let AuthorityStatusDoc { authority_type, .. } = authority;
        let mut doc = value(authority);
        // The keys follow with their certificates, by pin.
        take(&mut doc, &["keys", "type"]);
        add(format!("authorities.{authority_type}"), doc);
    }
    for member in &status.members {
        let MemberDoc { id, .. } = member;
        add(format!("members.{id}"), value(member));
    }
    for node in shape::nodes(state) {
        let NodeDoc { metadata, spec, .. } = &node;
        let path = format!("nodes.{}", spec.hostname);
        add(format!("{path}.id"), value(&metadata.name));
        add(format!("{path}.labels"), value(&metadata.labels));
        add(path, value(spec));
    }
    for AuthorityDoc {
        authority_type, keys, ..
    } in shape::authorities(state)
    {
        for key in keys {
            let mut doc = value(&key);
            take(&mut doc, &["certificate"]);
            add(
                format!("authorities.{authority_type}.keys.{}", key.key.pin.short()),
                doc,
            );
        }
    }
    let users = shape::users(state);
    users
        .iter()
        .for_each(|user| add(format!("users.{}", user.name), value(user)));
    let tokens = shape::tokens(state, state.time);
    tokens
        .iter()
        .for_each(|token| add(format!("tokens.{}", token.id), value(token)));
    let consumers = shape::consumers(state);
    consumers
        .iter()
        .for_each(|c| add(format!("consumers.{}.{}", c.authority_type, c.name), value(c)));
    for certificate in shape::certificates(state) {
        let CertificateDoc { holder, serial, .. } = &certificate;
        add(format!("certificates.{holder}.{serial}"), value(&certificate));
    }
    leaves
}

fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).expect("shapes have string keys")
}

fn take(doc: &mut Value, fields: &[&str]) {
    if let Value::Object(map) = doc {
        map.retain(|name, _| !fields.contains(&name.as_str()));
    }
}

/// Objects are walked into; lists and plain values are leaves.
fn walk(path: &str, of: Value, leaves: &mut BTreeMap<String, Value>) {
    match of {
        Value::Object(map) => map
            .into_iter()
            .for_each(|(name, value)| walk(&format!("{path}.{name}"), value, leaves)),
        Value::Null => {}
        leaf => {
            leaves.insert(path.to_owned(), leaf);
        }
    }
}
